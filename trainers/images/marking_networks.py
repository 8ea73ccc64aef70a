"""Networks that mark pictures, pixel by pixel or by boxes: of torchvision, of a class, or what an earlier run saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Model
from launch.config.run_dir import read_json, write_json
from launch.config.sources import OwnClass, TorchvisionModel, parse_model
from trainers.images import torchvision_models
from trainers.images.networks import set_dropout
from trainers.models.own_networks import NETWORK_FILE, sized_arguments
from trainers.models.weights import locate_weights, put_parts, read_weights, rename
from trainers.own_code import build_own_model, copy_own_code
from trainers.sources import locate


@dataclass(frozen=True)
class Family:
    """The networks that one task trains.

    Args:
        library: torchvision's module of them, and the beginning of their names in it.
        heads: beginnings of the names of what has a size for each category.
        parts: beginnings of the names of what a file of weights has as a whole or not at all, inner parts first.
    """

    library: str
    prefix: str
    heads: tuple[str, ...]
    parts: tuple[str, ...]


SEGMENTATION = Family(
    "segmentation",
    "",
    ("classifier.4.", "classifier.low_classifier.", "classifier.high_classifier.", "aux_classifier.4."),
    ("backbone.", "classifier.", "aux_classifier."),
)
DETECTION = Family("detection", "fasterrcnn_", ("roi_heads.box_predictor.",), ("backbone.body.", "backbone.fpn.", "rpn.", "roi_heads."))


@dataclass(frozen=True)
class Recipe:
    """How a network is built, its weights aside.

    Args:
        torchvision: its name there; None: it is of a class.
        class_: MODULE:NAME; None: it is torchvision's.
        folder: where the code of a saved class lies, None: where Python finds it.
    """

    torchvision: str | None
    class_: str | None
    kwargs: Mapping[str, Any]
    folder: Path | None = None

    def build(self) -> nn.Module:
        """Returns the network with new weights, from torch's random state."""
        if self.torchvision is not None:
            from torchvision.models import get_model

            network: nn.Module = get_model(self.torchvision, weights=None, weights_backbone=None, **self.kwargs)
            return network
        module, _, name = str(self.class_).partition(":")
        return build_own_model(OwnClass(module, name), self.kwargs, self.folder)


def find_recipe(model: Model, family: Family, sizes: Mapping[str, Any]) -> Recipe:
    """Returns how the experiment's network is built.

    Args:
        sizes: arguments that the task decides: num_classes, and for torchvision's what else it takes.

    Raises:
        ConfigError: no such network, or none of this family.
    """
    source = parse_model(model)
    if isinstance(source, OwnClass):
        return Recipe(None, model.class_, sized_arguments(model, {"num_classes": sizes["num_classes"]}))
    if isinstance(source, TorchvisionModel):
        torchvision_models.check_name(source, family.library, family.prefix)
        takes_all = not source.name.startswith("lraspp")  # which has no auxiliary head
        return Recipe(source.name, None, dict(sizes) if takes_all else {"num_classes": sizes["num_classes"]})
    folder = _saved_folder(model)
    facts = _read_facts(folder, "model.source")
    return Recipe(facts.get("torchvision"), facts.get("class"), facts["kwargs"] | {"num_classes": sizes["num_classes"]}, folder / "code")


def build_marking_network(model: Model, family: Family, recipe: Recipe, seed: int) -> tuple[nn.Module, list[str]]:
    """Returns the network in float32 on the CPU with the weights that the experiment names, and what a person should know of it.

    What the weights lack is drawn from `seed`: a head for other categories, and whole parts (of a backbone's file all the others).

    Raises:
        ConfigError: it cannot be built, or its weights do not fit it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = recipe.build()
    if model.dropout is not None and recipe.class_ is None:
        set_dropout(network, model)
    if model.gradient_checkpointing:
        what = f"{type(network).__name__} has no gradient checkpointing"
        raise ConfigError(Problem(what, key="model.gradient_checkpointing", fix="model.gradient_checkpointing=false"))
    found = _find_weights(model)
    if found is None:
        return network, []
    weights, where = found
    heads = family.heads if model.head is None else (f"{model.head}.",)
    if model.head is not None and not any(name.startswith(heads) for name in network.state_dict()):
        raise ConfigError(Problem(f"{type(network).__name__} has no layer {model.head!r}", key="model.head", fix="model.head=null"))
    new = put_parts(network, weights, family.parts, heads, where)
    return network, [f"new, not in {where}: {', '.join(new)}"] if new else []


def save_marking_network(recipe: Recipe, facts: Mapping[str, Any], folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes weights, how the network is built, the code of a class of one's own, and `facts`: what using the network takes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    if recipe.class_ is not None:
        copy_own_code(recipe.class_.partition(":")[0], folder / "code")
    kind = {"class": recipe.class_} if recipe.class_ is not None else {"torchvision": recipe.torchvision}
    write_json(folder / NETWORK_FILE, {"format": 1, **kind, "kwargs": dict(recipe.kwargs), **facts})


def load_marking_network(folder: Path) -> tuple[Recipe, dict[str, Any]]:
    """Returns how the network that a run saved is built, and its facts.

    Raises:
        ConfigError: no run wrote this folder.
    """
    facts = _read_facts(folder, None)
    return Recipe(facts.get("torchvision"), facts.get("class"), facts["kwargs"], folder / "code"), facts


def saved_statistics(model: Model) -> tuple[list[float], list[float]] | None:
    """Returns mean and standard deviation of each channel that the weights were trained with; None where nobody says."""
    source = parse_model(model)
    if isinstance(source, OwnClass) or model.weights is not None:
        return None
    if isinstance(source, TorchvisionModel):
        return torchvision_models.statistics(source)
    facts = _read_facts(_saved_folder(model), "model.source")
    return facts["mean"], facts["std"]


def _find_weights(model: Model) -> tuple[Mapping[str, Tensor], str] | None:
    """Returns the weights that the experiment names, and where they are from; None: all are new."""
    source = parse_model(model)
    if model.weights is not None:
        path = locate_weights(model.weights)
        return rename(read_weights(path), model.key_map), str(path)
    if isinstance(source, TorchvisionModel):
        if source.weights is None:
            return None
        return torchvision_models.read_published(source), f"the weights {source.weights} of {source.name}"
    if isinstance(source, OwnClass):
        return None
    folder = _saved_folder(model)
    return read_weights(folder / "model.safetensors"), str(folder)


def _saved_folder(model: Model) -> Path:
    place = locate(str(model.source), "model.source")
    if not isinstance(place, Path):
        what = f"{model.source!r} is a name of the hub, whose networks this task does not train"
        raise ConfigError(Problem(what, key="model.source", allowed="torchvision://NAME?weights=..., runs/<a run of this task>, or model.class"))
    return place


def _read_facts(folder: Path, key: str | None) -> dict[str, Any]:
    facts = read_json(folder / NETWORK_FILE)
    if facts is None or not ({"torchvision", "class"} & facts.keys() and "label_names" in facts):
        raise ConfigError(Problem(f"has no {NETWORK_FILE} of a network that marks pictures", str(folder), key, "the model/ folder of such a run"))
    return facts
