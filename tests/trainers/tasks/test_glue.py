from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.tasks.glue import GLUE, Glue, GlueName
from tests.tiny import tiny_bert
from tests.tiny_texts import tiny_glue
from trainers.tasks import build_task
from trainers.tasks.glue import hub_name

NAMES: tuple[GlueName, ...] = get_args(GlueName)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def experiment(bert: Path | str, source: Path | str, name: str, **task: Any) -> Experiment:
    values = {
        "name": "tiny",
        "model": {"source": str(bert)},
        "task": {"kind": "glue", "name": name, "layout": "tsv", "max_length": 32, **task},
        "data": {
            "source": str(source),
            "splits": {"train": "train.tsv", "validation": "dev.tsv", "test": "dev_mismatched.tsv"},
            "columns": ["source", "label", "star", "sentence"] if name == "cola" else None,
        },
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }
    return Experiment.model_validate(values)


def test_the_table_has_all_nine_tasks() -> None:
    assert set(GLUE) == set(NAMES)
    assert len(NAMES) == 9


@pytest.mark.parametrize("name", NAMES)
def test_each_task_reads_the_benchmarks_own_files_and_is_judged_by_its_own_metrics(name: GlueName, bert: Path, tmp_path: Path) -> None:
    chosen = experiment(bert, tiny_glue(tmp_path / "glue", name), name)
    task, facts = build_task(chosen), GLUE[name]
    assert task.num_samples == {"train": 61, "validation": 14, "test": 12}
    assert task.label_names == list(facts.label_names)
    dataset: Any = task.dataset("validation")
    batch = task.collate([dataset[0, index] for index in range(14)])
    assert ("token_type_ids" in batch) == (len(facts.hub) == 2)
    expected = [index % 6 for index in range(14)] if name == "stsb" else [index % len(facts.label_names) for index in range(14)]
    assert batch["labels"].tolist() == expected
    metrics = task.build_metrics()
    with torch.no_grad():
        metrics.update(*task.evaluate_batch(task.build_model().eval(), batch)[2])
    values = {key: float(value) for key, value in metrics.compute().items() if value.ndim == 0}
    assert set(values) == {*facts.metrics, "score"}
    assert values["score"] == pytest.approx(sum(values[key] for key in facts.metrics) / len(facts.metrics))
    assert set(chosen.task.metrics() or ()) == {*facts.metrics, "score", "loss"}


def test_f1_is_of_the_second_class_and_the_score_its_mean_with_accuracy(bert: Path, tmp_path: Path) -> None:
    task = build_task(experiment(bert, tiny_glue(tmp_path / "glue", "mrpc"), "mrpc"))
    metrics = task.build_metrics()
    metrics.update(torch.tensor([1, 1, 0, 0, 1]), torch.tensor([1, 0, 1, 0, 1]))  # 2 hits, 1 false alarm, 1 miss, 1 right rejection
    values = metrics.compute()
    assert float(values["accuracy"]) == pytest.approx(3 / 5)
    assert float(values["f1"]) == pytest.approx(2 / 3)
    assert float(values["score"]) == pytest.approx((3 / 5 + 2 / 3) / 2)
    assert values["confusion_matrix"].tolist() == [[1, 1], [1, 2]]


def test_columns_are_the_hubs_unless_the_files_are_the_benchmarks_or_somebody_names_them(bert: Path) -> None:
    def columns(**task: Any) -> dict[str, list[str]]:
        return Glue.model_validate({"kind": "glue", **task}).columns()

    assert columns(name="mnli") == {"task.text": ["premise", "hypothesis"], "task.label": ["label"]}
    assert columns(name="mnli", layout="tsv") == {"task.text": ["sentence1", "sentence2"], "task.label": ["gold_label"]}
    assert columns(name="sst2", text="review", label=None) == {"task.text": ["review"], "task.label": ["label"]}


def test_the_task_is_the_configuration_of_the_hubs_data_set() -> None:
    assert hub_name(experiment("some/model", "nyu-mll/glue", "rte")) == "nyu-mll/glue:rte"
    assert hub_name(experiment("some/model", "nyu-mll/glue:mnli", "mnli")) == "nyu-mll/glue:mnli"
    assert hub_name(experiment("some/model", "./glue", "rte")) == "./glue"


def test_a_task_that_is_none_of_the_nine_is_refused(bert: Path) -> None:
    with pytest.raises(ValueError, match="'cola', 'sst2', 'mrpc'"):
        experiment(bert, "./glue", "snli")


def test_a_label_of_another_task_is_named_with_its_place(bert: Path, tmp_path: Path) -> None:
    folder = tiny_glue(tmp_path / "glue", "rte")
    lines = (folder / "dev.tsv").read_text().splitlines()
    lines[3] = lines[3].replace("entailment", "neutral").replace("not_", "")
    (folder / "dev.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=r"dev\.tsv:4: the label 'neutral' is not a class\n    allowed: entailment, not_entailment"):
        build_task(experiment(bert, folder, "rte"))
