from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.tasks.texts import Pooling
from tests.tiny import tiny_bert, tiny_sentences
from trainers.assembly import build_model
from trainers.models.pooled import PooledNetwork, load_pooled
from trainers.optimizers import set_training_mode
from trainers.tasks import Task, build_task


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


def built(bert: Path, folder: Path, pooling: Pooling, **model: Any) -> tuple[Experiment, Task]:
    values = {
        "name": "tiny",
        "model": {"source": str(bert), "freeze": ["bert.*"], **model},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 16, "pooling": pooling},
        "data": {"source": str(tiny_sentences(folder / "tiny.tsv", 30)), "splits": {"validation": None}},
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }
    experiment = Experiment.model_validate(values)
    return experiment, build_task(experiment)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def inputs() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
def test_each_pooling_is_the_vector_it_says(pooling: Pooling, bert: Path, tmp_path: Path) -> None:
    network: Any = built(bert, tmp_path, pooling)[1].build_model().eval()
    with torch.inference_mode():
        features, output = network.features(**inputs()), network.body(**inputs())
        states = output.last_hidden_state
        expected = {"mean": torch.stack([states[0].mean(0), states[1, :3].mean(0)]), "first": states[:, 0], "pooler": output.pooler_output}
        assert torch.allclose(features, expected[pooling], atol=1e-6)
        assert torch.equal(network(**inputs()).logits, network.head(features))


def test_the_first_token_stands_behind_padding_on_the_left(bert: Path, tmp_path: Path) -> None:
    network: Any = built(bert, tmp_path, "first")[1].build_model().eval()
    left = {"input_ids": torch.tensor([[0, 2, 7, 3]]), "attention_mask": torch.tensor([[0, 1, 1, 1]])}
    with torch.inference_mode():
        assert torch.equal(network.features(**left), network.body(**left).last_hidden_state[:, 1])


def test_a_frozen_body_gets_no_gradients_and_only_the_head_is_trained(bert: Path, tmp_path: Path) -> None:
    experiment, task = built(bert, tmp_path, "mean")
    network = build_model(task, experiment)
    set_training_mode(network)
    dataset = task.dataset("train")
    loss, count = task.train_loss(network, task.collate([dataset[0, index] for index in range(4)]), 0.0)
    loss.backward()
    assert count == 4
    assert [name for name, parameter in network.named_parameters() if parameter.grad is not None] == ["head.weight", "head.bias"]
    assert all(not parameter.requires_grad for name, parameter in network.named_parameters() if name.startswith("bert."))


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
def test_all_that_is_trained_has_a_gradient(pooling: Pooling, bert: Path, tmp_path: Path) -> None:
    """DDP ends a training in its second step otherwise."""
    network: Any = built(bert, tmp_path, pooling, freeze=[])[1].build_model()
    network(**inputs()).logits.sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.requires_grad and parameter.grad is None] == []


def test_lora_trains_the_head_whole(bert: Path, tmp_path: Path) -> None:
    from launch.config.experiment import Lora
    from trainers.models.lora import add_adapters

    network = add_adapters(built(bert, tmp_path, "mean", freeze=[])[1].build_model(), Lora(), seed=0)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert sum("lora_" in name for name in trained) == 8  # two layers, two projections, two matrices each
    assert {name.rpartition(".")[2] for name in trained if "lora_" not in name and ".head." in name} == {"weight", "bias"}
    assert all("lora_" in name or ".head." in name for name in trained)


def test_the_head_is_drawn_from_the_seed_alone(bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path, "mean")[1]
    first: Any = task.build_model()
    torch.randn(7)
    second: Any = task.build_model()
    assert torch.equal(first.head.weight, second.head.weight)


def test_a_saved_model_predicts_in_three_lines_and_its_body_is_read_by_transformers(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    experiment, task = built(bert, tmp_path, "mean")
    network: Any = task.build_model().eval()
    folder = tmp_path / "model"
    task.save(network, folder, network.state_dict())
    scope: dict[str, Any] = {"print": lambda value: scope.update(printed=value)}
    exec("\n".join(line.format(model=folder) for line in experiment.task.usage()), scope)
    assert set(scope["printed"]) == {"0", "1"}
    assert sum(scope["printed"].values()) == pytest.approx(1.0)
    body = AutoModel.from_pretrained(folder)
    assert all(torch.equal(body.state_dict()[name], tensor) for name, tensor in network.body.state_dict().items())
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "0", "1": "1"}
    loaded = load_pooled(folder).network
    assert isinstance(loaded, PooledNetwork)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_another_runs_model_is_not_taken_for_a_pooled_one(bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not the model of a run with task\.pooling"):
        load_pooled(bert)


def test_a_pooler_that_the_weights_lack_is_refused(bert: Path, tmp_path: Path) -> None:
    import shutil

    without = shutil.copytree(bert, tmp_path / "without")
    weights = {name: tensor for name, tensor in load_file(bert / "model.safetensors").items() if "pooler" not in name}
    save_file(weights, without / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"task\.pooling: .* has no weights for its pooler\n    allowed: mean, first"):
        built(without, tmp_path, "pooler")[1].build_model()
    built(without, tmp_path, "mean")[1].build_model()


def test_a_body_without_its_weights_is_refused(bert: Path, tmp_path: Path) -> None:
    import shutil

    without = shutil.copytree(bert, tmp_path / "without")
    weights = {name: tensor for name, tensor in load_file(bert / "model.safetensors").items() if "encoder.layer.1" not in name}
    save_file(weights, without / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"has no weights for 16 tensors of BertModel"):
        built(without, tmp_path, "mean")[1].build_model()
