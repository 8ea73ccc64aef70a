from __future__ import annotations

import pytest
import torch
from torch import nn

from launch.config.errors import ConfigError
from launch.config.sharding import Fsdp
from trainers.engines.fsdp2 import find_units
from trainers.models.skeleton import without_weights


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("positions", torch.arange(8), persistent=False)


def names(model: nn.Module, **options: object) -> list[str]:
    units = find_units(model, Fsdp(**options))  # type: ignore[arg-type]
    return [name for name, module in model.named_modules() if any(module is unit for unit in units)]


def test_the_layers_the_library_names_are_the_units() -> None:
    model = Model()
    model._no_split_modules = ["Layer", "Embedding"]  # type: ignore[assignment]
    model.head.weight = nn.Parameter(torch.zeros(8, 4))
    assert names(model) == ["embedding", "layers.0", "layers.1"]


def test_what_shares_weights_with_another_part_is_the_root_s() -> None:
    model = Model()
    model._no_split_modules = ["Layer", "Embedding"]  # type: ignore[assignment]
    assert names(model) == ["layers.0", "layers.1"]


def test_without_names_the_members_of_module_lists_are_the_units() -> None:
    assert names(Model()) == ["layers.0", "layers.1"]


def test_without_lists_the_parts_of_sequentials_that_have_weights_are() -> None:
    assert names(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Linear(1, 1))) == ["0", "2"]


def test_the_strategy_chooses_by_class_by_size_or_not_at_all() -> None:
    assert names(Model(), layer_classes=("Layer",)) == ["layers.0", "layers.1"]
    assert names(Model(), wrap="size", min_num_params=30) == ["layers.0.inner", "layers.1.inner"]
    assert names(Model(), wrap="root") == []


def test_a_class_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="no module of class Block"):
        names(Model(), layer_classes=("Block",))


def test_a_skeleton_has_shapes_and_ties_and_no_memory() -> None:
    model = Model()
    skeleton = without_weights(model)
    assert {name: p.shape for name, p in skeleton.named_parameters()} == {name: p.shape for name, p in model.named_parameters()}
    assert {tensor.device.type for tensor in (*skeleton.parameters(), *skeleton.buffers())} == {"meta"}
    assert skeleton.head.weight is skeleton.embedding.weight
    assert model.head.weight.device.type == "cpu"
