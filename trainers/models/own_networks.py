"""Networks of a class that is told its sizes by the data: built, saved with what they need to be used, and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Model
from launch.config.run_dir import read_json, write_json
from launch.config.sources import OwnClass, parse_model
from trainers.models.heads import find_head
from trainers.models.weights import locate_weights, put_weights, read_weights, rename
from trainers.own_code import build_own_model, copy_own_code

NETWORK_FILE = "network.json"


def build_sized_network(model: Model, sizes: Mapping[str, int], seed: int) -> nn.Module:
    """Returns model.class(**sizes, **kwargs) in float32 on the CPU, its weights drawn from `seed` or read from model.weights.

    Args:
        sizes: what the data decides (num_letters, num_items); model.kwargs may not contradict it.

    Raises:
        ConfigError: there is no class, it does not take these arguments, or its weights do not fit it.
    """
    source = parse_model(model)
    if not isinstance(source, OwnClass):
        what = f"{model.source} is no network that can be told its sizes: {', '.join(f'{name}={size}' for name, size in sizes.items())}"
        raise ConfigError(Problem(what, key="model.source", fix="model.source=null model.class=MODULE:NAME"))
    arguments = sized_arguments(model, sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_own_model(source, arguments)
    if model.weights is not None:
        path = locate_weights(model.weights)
        put_weights(network, rename(read_weights(path), model.key_map), find_head(network, model.head), str(path))
    if model.gradient_checkpointing:
        what = f"{type(network).__name__} has no gradient checkpointing"
        raise ConfigError(Problem(what, key="model.gradient_checkpointing", fix="model.gradient_checkpointing=false"))
    return network


def save_sized_network(model: Model, sizes: Mapping[str, int], facts: Mapping[str, Any], folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes weights, the class with its arguments, the code of a class of one's own, and `facts`: what using the network takes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    assert model.class_ is not None
    copy_own_code(model.class_.partition(":")[0], folder / "code")
    write_json(folder / NETWORK_FILE, {"format": 1, "class": model.class_, "kwargs": sized_arguments(model, sizes), **facts})


def load_sized_network(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the network that a run saved, in evaluation mode, and its facts.

    Raises:
        ConfigError: no run wrote this folder, or a file is missing.
    """
    facts = read_json(folder / NETWORK_FILE)
    if facts is None:
        raise ConfigError(Problem(f"has no {NETWORK_FILE}", str(folder), allowed="the model/ folder of a run"))
    module, _, name = facts["class"].partition(":")
    network = build_own_model(OwnClass(module, name), facts["kwargs"], folder / "code")
    network.load_state_dict(read_weights(folder / "model.safetensors"))
    return network.eval(), facts


def sized_arguments(model: Model, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Returns what the class is called with: sizes, model.kwargs, and model.dropout if it is given.

    Raises:
        ConfigError: model.kwargs says a size.
    """
    for name in sizes.keys() & model.kwargs.keys():
        raise ConfigError(Problem("the data decides it", key=f"model.kwargs.{name}", fix="delete it"))
    dropout = {} if model.dropout is None else {"dropout": model.dropout}
    return {**sizes, **model.kwargs, **dropout}
