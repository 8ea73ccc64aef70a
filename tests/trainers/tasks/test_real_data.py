"""The shipped experiments on real sentences; FULLRANK_DATA says where the data is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launch.config.load import load_experiment
from launch.config.resolve import resolve
from tests.tiny import tiny_bert
from trainers.tasks import build_task

DATA = Path(os.environ.get("FULLRANK_DATA", ""))

pytestmark = pytest.mark.skipif("FULLRANK_DATA" not in os.environ, reason="FULLRANK_DATA does not say where the real data is")


@pytest.fixture
def bert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    return tiny_bert(tmp_path / "bert")


def test_bert_sst2_runs_on_local_files_by_overrides_alone(bert: Path) -> None:
    files = ["data.splits.train=train.tsv", "data.splits.validation=dev.tsv", "data.splits.test=test.tsv", "data.columns=[sentence, label]"]
    loaded = load_experiment("bert_sst2", [f"model.source={bert}", f"data.source={DATA / 'sst2'}", *files, "task.max_length=64"])
    task = build_task(resolve(loaded))
    assert task.num_samples == {"train": 6920, "validation": 872, "test": 1821}
    assert (task.label_names, task.notes) == (["0", "1"], [])
    assert [sum(task.dataset(split)[0, i]["label"] for i in range(n)) for split, n in task.num_samples.items()] == [3610, 444, 909]  # type: ignore[index]


def test_quickstart_reads_the_rated_sentences(bert: Path) -> None:
    source = DATA / "vader_icwsm2014/movieReviewSnippets_GroundTruth.txt"
    task = build_task(resolve(load_experiment("quickstart", [f"model.source={bert}", f"data.source={source}"])))
    assert task.num_samples == {"train": 8454, "validation": 1057, "test": 1057}
    assert task.label_names == ["negative", "positive"]
    assert task.notes == ["37 rows left out: their rating is exactly 0"]
