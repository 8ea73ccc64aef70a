"""What a first line and a folder's names tell is refused before anything starts."""

from __future__ import annotations

import pytest

from launch.config.load import load_experiment
from launch.config.sources import HubName, LocalPath
from launch.unfit_sources import find_unfit_sources

HUB_MODEL = HubName("owner/model")


@pytest.fixture
def unfit(experiment_file):
    """Returns the problems of a source as text; the task's columns are sentence and label."""

    def find(path, *overrides, model=HUB_MODEL):
        experiment = load_experiment(str(experiment_file), (f"data.source={path}", *overrides)).experiment
        return "\n".join(map(str, find_unfit_sources(experiment, model, LocalPath(path))))

    return find


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "text,label\ngood,1\n"),
        ("a.tsv", "text\tlabel\ngood\t1\n"),
        ("a.jsonl", '\n{"text": "good", "label": 1}\n'),
        ("a.CSV", "\ufefftext,label\n"),
    ],
)
def test_table_without_the_tasks_column_names_its_columns(tmp_path, unfit, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = unfit(tmp_path / name)
    assert f"{tmp_path / name}: task.text: there is no column 'sentence'" in found
    assert "allowed: the columns: text, label" in found
    assert "task.label" not in found
    assert unfit(tmp_path / name, "task.text=text") == ""


def test_every_named_split_is_looked_at(tmp_path, unfit):
    (tmp_path / "train.csv").write_text("sentence,label\n")
    (tmp_path / "dev.csv").write_text("sentence,class\n")
    found = unfit(tmp_path, "data.splits.train=train.csv", "data.splits.validation=dev.csv")
    assert f"{tmp_path / 'dev.csv'}: task.label: there is no column 'label'" in found
    assert "train.csv" not in found


@pytest.mark.parametrize(
    ("name", "text", "overrides"),
    [
        ("a.csv", "good,1\n", ["data.columns=[sentence, label]"]),
        ("a.jsonl", '{"other": 1}\n', ["data.on_bad_row=skip"]),
        ("a.jsonl", "no json\n", []),
        ("a.csv", "", []),
        ("a.parquet", "PAR1", []),
    ],
)
def test_what_a_first_line_does_not_tell_is_left_to_the_ranks(tmp_path, unfit, name, text, overrides):
    (tmp_path / name).write_text(text)
    assert unfit(tmp_path / name, *overrides) == ""


def test_folder_without_a_configuration_is_no_model(tmp_path, unfit):
    model = tmp_path / "model"
    model.mkdir()
    assert f"model.source: {model} is not a model's folder: it has no config.json" in unfit(tmp_path, model=LocalPath(model))
    (model / "config.json").touch()
    assert unfit(tmp_path, model=LocalPath(model)) == ""
    assert unfit(tmp_path, model=LocalPath(tmp_path / "nowhere")) == ""  # what is missing is told by its own check
