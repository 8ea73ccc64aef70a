from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.prepared import read_prepared
from launch.config.tasks import Multitask
from tests.tiny import tiny_bert, tiny_sentences
from tests.tiny_texts import tiny_tagged
from trainers.models.int8 import quantize, save_int8
from trainers.models.multihead import load_multihead
from trainers.tasks import Draws, build_task
from trainers.tasks.multitask import MetricsOfParts, MultitaskTask

CUT = {"splits": {"validation": None}, "validation_fraction": 0.25}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture
def values(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An experiment's values on 40 sentences with a label and 20 with tagged words, and an empty cache."""
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    return {
        "name": "tiny",
        "model": {"source": str(bert), "dropout": 0.0},
        "task": {
            "kind": "multitask",
            "tasks": {
                "mood": {"task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 16}},
                "names": {"task": {"kind": "ner", "max_length": 16}, "data": {"source": str(tiny_tagged(tmp_path / "tagged.conll", 20)), **CUT}},
            },
        },
        "data": {"source": str(tiny_sentences(tmp_path / "tiny.tsv", 40)), **CUT},
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }


def build(values: dict[str, Any]) -> tuple[Experiment, MultitaskTask]:
    experiment = Experiment.model_validate(values)
    task = build_task(experiment)
    assert isinstance(task, MultitaskTask)
    return experiment, task


def batch_of(task: MultitaskTask, *indices: int) -> dict[str, torch.Tensor]:
    dataset = task.dataset("train")
    return task.collate([dataset[0, index] for index in indices])


def test_samples_are_numbered_through_all_tasks(values: dict[str, Any], tmp_path: Path) -> None:
    experiment, task = build(values)
    assert task.num_samples == {"train": 45, "validation": 15} == read_prepared(experiment)
    assert len(task.lengths("train")) == len(task.dataset("train")) == 45
    assert list(batch_of(task, 0, 1)) == ["mood/input_ids", "mood/attention_mask", "mood/labels"]
    assert list(batch_of(task, 30, 44)) == ["names/input_ids", "names/labels", "names/words", "names/tags", "names/attention_mask"]
    assert task.show_sample("train", 30, tmp_path).startswith("names: ")
    assert pickle.loads(pickle.dumps(task.dataset("train")))[0, 30]["input_ids"].tolist() == task.dataset("train")[0, 30]["input_ids"].tolist()


def test_a_batch_of_several_tasks_keeps_those_of_the_first(values: dict[str, Any]) -> None:
    _, task = build(values)
    assert batch_of(task, 0, 44, 1)["mood/labels"].shape == (2,)


def test_steps_are_of_one_task_and_equal_on_any_number_of_ranks(values: dict[str, Any]) -> None:
    _, task = build(values)
    assert isinstance(task, Draws)
    batches = task.global_batches(0)
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 5]
    assert all(len({index < 30 for index in batch.tolist()}) == 1 for batch in batches)
    assert sorted(index for batch in task.evaluation_batches("validation", 4) for index in batch.tolist()) == list(range(15))


def test_a_step_s_loss_is_the_task_s_own(values: dict[str, Any]) -> None:
    _, task = build(values)
    network: Any = task.build_model().eval()
    with torch.no_grad():
        batch = batch_of(task, 0, 3, 5)
        states = network.body(input_ids=batch["mood/input_ids"], attention_mask=batch["mood/attention_mask"]).last_hidden_state
        mask = batch["mood/attention_mask"][:, :, None]
        logits = network.heads["mood"]((states * mask).sum(1) / mask.sum(1))
        loss, count = task.train_loss(network, batch, 0.0)
        assert float(loss) == pytest.approx(float(functional.cross_entropy(logits, batch["mood/labels"], reduction="sum")), rel=1e-6)
        assert int(count) == task.batch_count(batch) == 3
        words = batch_of(task, 30, 31)
        loss, count = task.train_loss(network, words, 0.0)
        states = network.body(input_ids=words["names/input_ids"], attention_mask=words["names/attention_mask"]).last_hidden_state
        logits, labels = network.heads["names"](states).flatten(0, 1), words["names/labels"].flatten()
        assert float(loss) == pytest.approx(float(functional.cross_entropy(logits, labels, reduction="sum")), rel=1e-6)
        assert int(count) == task.batch_count(words) == int((labels != -100).sum())


def test_every_parameter_has_a_gradient_in_every_step_and_the_other_head_s_is_zero(values: dict[str, Any]) -> None:
    _, task = build(values)
    network: Any = task.build_model().train()
    task.train_loss(network, batch_of(task, 0, 1), 0.0)[0].backward()
    assert not [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert network.heads["names"].weight.grad.abs().max() == 0
    assert network.heads["mood"].weight.grad.abs().max() > 0


@pytest.mark.parametrize("is_training", [True, False])
def test_modules_run_in_one_order_whatever_task_a_batch_is_of(is_training: bool, values: dict[str, Any]) -> None:
    _, task = build(values)
    network: Any = task.build_model().train(is_training)
    order: list[str] = []
    for name, module in network.named_modules():
        module.register_forward_pre_hook(lambda module, inputs, name=name: order.append(name))
    orders = []
    for index in (0, 30):
        order.clear()
        task.train_loss(network, batch_of(task, index, index + 1), 0.0)
        orders.append(list(order))
    assert orders[0] == orders[1]
    assert {"heads.mood", "heads.names"} < set(orders[0])


def test_each_task_is_judged_by_its_own_metrics_and_the_score_is_their_mean(values: dict[str, Any]) -> None:
    experiment, task = build(values)
    metrics: Any = task.build_metrics()
    assert isinstance(metrics, MetricsOfParts)
    metrics.update("mood", torch.tensor(2.0), torch.tensor(4), torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 0, 0]))
    metrics.update("mood", torch.tensor(1.0), torch.tensor(1), torch.tensor([1]), torch.tensor([1]))
    counts = torch.zeros(3, 3, dtype=torch.int64)
    counts[0, 0], counts[1, 2], counts[2, 0] = 2, 1, 1  # two names found, one missed, one made up
    metrics.update("names", torch.tensor(6.0), torch.tensor(12), counts)
    found = metrics.compute()
    assert {name: round(float(found[name]), 4) for name in ("mood_accuracy", "mood_loss", "names_f1", "names_loss", "score")} == {
        "mood_accuracy": 0.8,
        "mood_loss": 0.6,
        "names_f1": 0.6667,
        "names_loss": 0.5,
        "score": 0.7333,
    }
    assert {name for name, value in found.items() if value.ndim == 0} | {"loss"} == set(experiment.task.metrics() or ())


def test_what_is_saved_predicts_for_each_task_and_its_body_is_read_by_transformers(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModel

    experiment, task = build(values)
    network: Any = task.build_model().eval()
    task.save(network, tmp_path / "model", network.state_dict())
    predict = load_multihead(tmp_path / "model")
    moods = predict("mood", "good film")
    assert isinstance(moods, dict)
    assert sum(moods.values()) == pytest.approx(1.0)
    assert set(moods) == {"0", "1"}
    words = predict("names", "the good film")
    assert isinstance(words, list)
    assert [word for word, _ in words] == ["the", "good", "film"]
    body = AutoModel.from_pretrained(tmp_path / "model")
    assert torch.equal(body.encoder.layer[1].output.dense.weight, network.body.encoder.layer[1].output.dense.weight)
    assert isinstance(experiment.task, Multitask)
    exec("\n".join(line.format(model=tmp_path / "model") for line in experiment.task.usage()))
    assert "{'" in capsys.readouterr().out


def test_what_is_exported_predicts_for_each_task(values: dict[str, Any], tmp_path: Path) -> None:
    _, task = build(values)
    network: Any = task.build_model().eval()
    task.save(network, tmp_path / "model", network.state_dict())
    before = load_multihead(tmp_path / "model")("mood", "good film")
    quantize(network)
    save_int8(network, tmp_path / "model")
    after = load_multihead(tmp_path / "model")("mood", "good film")
    assert isinstance(before, dict)
    assert after == pytest.approx(before, abs=0.01)
    assert after != before


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"task": {"kind": "text_classification", "text": "words", "label": "label", "max_length": 16}}, "task.tasks.other.task.text: there is no"),
        ({"task": {"kind": "ner", "max_length": 99}}, "task.tasks.other.task.max_length: 99 tokens"),
        ({"task": {"kind": "ner", "max_length": 16}, "data": {"source": "./nowhere"}}, "task.tasks.other.data.source: there is no .*nowhere"),
    ],
)
def test_a_problem_names_the_task_that_has_it(part: dict[str, Any], message: str, values: dict[str, Any]) -> None:
    values["task"]["tasks"]["other"] = part
    with pytest.raises(ConfigError, match=message):
        build(values)


@pytest.mark.parametrize(("task", "fix"), [("names", "task.tasks.names.data.on_bad_row=skip"), ("mood", "data.on_bad_row=skip")])
def test_what_is_to_be_typed_about_bad_rows_names_the_data_of_its_task(task: str, fix: str, values: dict[str, Any]) -> None:
    path = Path(values["task"]["tasks"][task].get("data", values["data"])["source"])
    path.write_text(f"{path.read_text()}\nunlabelled\n")
    with pytest.raises(ConfigError, match=rf"(?m)^    try: mend them, or {fix} to leave them out"):
        build(values)
