from __future__ import annotations

import pytest

from launch.config.load import load_experiment
from launch.config.sources import HubName, LocalPath
from launch.sizes.samples import SampleCount, count_rows, count_train_samples

ROWS = 'sentence,label\n"two\nlines",1\nplain,0\n\n'


@pytest.mark.parametrize(
    ("kind", "text", "has_header", "count"),
    [
        ("csv", ROWS, True, 2),
        ("csv", ROWS, False, 3),
        ("tsv", 'a "quote\t1\nb\t0\n', False, 2),
        ("jsonl", '{"a": 1}\n\n{"a": 2}', True, 2),
        ("csv", "", True, 0),
    ],
)
def test_rows_are_counted_without_header_and_blank_lines(tmp_path, kind, text, has_header, count):
    (tmp_path / "file").write_text(text)
    assert count_rows(tmp_path / "file", kind, "utf-8", has_header) == count


def counted(experiment_file, folder, *overrides):
    overrides = (f"data.source={folder}", "data.splits.train=train.csv", *overrides)
    return count_train_samples(load_experiment(str(experiment_file), overrides).experiment, LocalPath(folder))


def test_local_file_is_counted_up_to_the_limit(experiment_file, tmp_path):
    (tmp_path / "train.csv").write_text(ROWS)
    assert counted(experiment_file, tmp_path) == SampleCount(2)
    assert counted(experiment_file, tmp_path, "data.limit=1") == SampleCount(1)


def test_what_is_cut_for_other_splits_is_not_trained_on(experiment_file, tmp_path):
    (tmp_path / "train.csv").write_text("sentence,label\n" + "a,1\n" * 15)
    assert counted(experiment_file, tmp_path, "data.validation_fraction=0.3", "data.test_fraction=0.1") == SampleCount(15 - 4 - 2)
    assert counted(experiment_file, tmp_path, "data.validation_fraction=0.3", "data.limit=7") == SampleCount(7)
    assert counted(experiment_file, tmp_path, "data.validation_fraction=0.3", "data.train_fraction=0.2") == SampleCount(2)


@pytest.mark.parametrize("override", ["data.on_bad_row=skip", "task.label_threshold=0.5"])
def test_count_that_may_change_is_left_open(experiment_file, tmp_path, override):
    (tmp_path / "train.csv").write_text(ROWS)
    count = counted(experiment_file, tmp_path, override)
    assert count.num_samples is None
    assert "known once the data has been prepared" in count.reason


def test_hub_data_is_unknown_until_it_is_fetched(experiment_file):
    experiment = load_experiment(str(experiment_file)).experiment
    assert count_train_samples(experiment, HubName("owner/data")) == SampleCount(None, "the data has not been fetched yet")


def test_prepared_data_knows_best(experiment_file, tmp_path, monkeypatch):
    monkeypatch.setattr("launch.sizes.samples.read_prepared", lambda experiment, listing: {"train": 7})
    assert counted(experiment_file, tmp_path) == SampleCount(7)
