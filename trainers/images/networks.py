"""Networks that classify pictures: of torchvision, of the hub, of a class of one's own, or what an earlier run saved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Model
from launch.config.run_dir import read_json, write_json
from launch.config.sources import OwnClass, TorchvisionModel, parse_model
from trainers.images import torchvision_models
from trainers.models.batch_norm import set_batch_norm
from trainers.models.heads import find_head, head_size, replace_head
from trainers.models.pretrained import load_image_model, load_image_statistics
from trainers.models.weights import locate_weights, put_weights, read_weights, rename
from trainers.own_code import build_own_model, copy_own_code
from trainers.sources import locate

CLASSIFIER_FILE = "classifier.json"
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Classifier:
    """What a saved network is, beside its weights: enough to build it again and to show it a picture.

    Args:
        library: torchvision, transformers, or own.
        architecture: a name of torchvision's, or MODULE:NAME of a class; empty for transformers, whose config.json says it.
        mean, std: of each channel, of pixels from 0 to 1.
    """

    library: str
    architecture: str
    label_names: list[str]
    size: int
    resize: int | None
    mean: list[float]
    std: list[float]
    head: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    channels: int = 3


def read_classifier(folder: Path) -> Classifier | None:
    """Returns what a run saved beside its weights, or None if no run wrote this folder."""
    values = read_json(folder / CLASSIFIER_FILE)
    return None if values is None else Classifier(**{name: values[name] for name in Classifier.__dataclass_fields__})


def find_statistics(model: Model, channels: int) -> tuple[list[float], list[float]]:
    """Returns the mean and standard deviation of each channel that the weights were trained with; 0.5 where nobody says.

    Raises:
        ConfigError: the model is not there.
    """
    source = parse_model(model)
    mean, std = list(HALF), list(HALF)
    if isinstance(source, TorchvisionModel):
        mean, std = torchvision_models.statistics(source) or (mean, std)
    elif not isinstance(source, OwnClass):
        assert model.source is not None
        place = locate(model.source, "model.source")
        saved = read_classifier(place) if isinstance(place, Path) else None
        mean, std = (saved.mean, saved.std) if saved else load_image_statistics(model.source) or (mean, std)
    return (mean, std) if len(mean) == channels else ([0.5] * channels, [0.5] * channels)


def build_network(model: Model, label_names: Sequence[str], channels: int, seed: int) -> tuple[nn.Module, list[str]]:
    """Returns the network in float32 on the CPU, as the experiment wants it trained, and what a person should know of it.

    What the source lacks (a new head, random weights) is drawn from `seed`.

    Raises:
        ConfigError: it cannot be built, its weights do not fit it, or it has no head.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, notes = _build(model, list(label_names), channels)
    if model.dropout is not None and not _is_transformers(network):
        set_dropout(network, model)
    if model.gradient_checkpointing and not _is_transformers(network):
        what = f"{type(network).__name__} has no gradient checkpointing"
        raise ConfigError(Problem(what, key="model.gradient_checkpointing", fix="model.gradient_checkpointing=false"))
    return set_batch_norm(network, model.batch_norm), notes


def load_network(folder: Path) -> nn.Module:
    """Returns the network that a run saved, with its weights, in evaluation mode.

    Raises:
        ConfigError: no run wrote this folder, or a file is missing.
    """
    saved = read_classifier(folder)
    if saved is None:
        raise ConfigError(Problem(f"has no {CLASSIFIER_FILE}", str(folder), allowed="the model/ folder of a run of image_classification"))
    if saved.library == "transformers":
        network, _ = load_image_model(Model(source=str(folder)), saved.label_names)
    else:
        network = _build_saved(saved, folder)
    return network.eval()


def save_network(network: Any, classifier: Classifier, folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes weights, the small file that says what they are, and for a class of one's own its code."""
    folder.mkdir(parents=True, exist_ok=True)
    if _is_transformers(network):
        network.save_pretrained(folder, state_dict=weights)
        write_json(folder / "preprocessor_config.json", _processor(classifier))
    else:
        from safetensors.torch import save_file

        save_file(_without_shared(weights), folder / "model.safetensors", metadata={"format": "pt"})
    if classifier.library == "own":
        copy_own_code(classifier.architecture.partition(":")[0], folder / "code")
    write_json(folder / CLASSIFIER_FILE, {"format": 1} | asdict(classifier))


def describe_network(model: Model, network: nn.Module) -> tuple[str, str]:
    """Returns the library and the architecture of a network, as a Classifier has them."""
    source = parse_model(model)
    if isinstance(source, OwnClass):
        return "own", f"{source.module}:{source.name}"
    if isinstance(source, TorchvisionModel):
        return "torchvision", source.name
    if _is_transformers(network):
        return "transformers", ""
    assert model.source is not None
    place = locate(model.source, "model.source")
    saved = read_classifier(place) if isinstance(place, Path) else None
    assert saved is not None, model.source
    return saved.library, saved.architecture


def _build(model: Model, label_names: list[str], channels: int) -> tuple[nn.Module, list[str]]:
    source = parse_model(model)
    if isinstance(source, TorchvisionModel):
        if channels != 3:
            raise ConfigError(Problem(f"torchvision's {source.name} sees 3 channels", key="task.channels", fix="task.channels=3"))
        network = torchvision_models.build(source, with_weights=model.weights is None)
        return _fitted(network, model, label_names, is_trained=source.weights is not None and model.weights is None)
    if isinstance(source, OwnClass):
        return _fitted(build_own_model(source, model.kwargs), model, label_names, is_trained=False)
    assert model.source is not None
    place = locate(model.source, "model.source")
    saved = read_classifier(place) if isinstance(place, Path) else None
    if saved is None or saved.library == "transformers":
        return load_image_model(model, label_names)
    assert isinstance(place, Path)
    if saved.library == "own":
        what = f"{model.source} is a run of the class {saved.architecture}"
        kwargs = "".join(f" model.kwargs.{name}={json.dumps(value)}" for name, value in saved.kwargs.items())
        fix = f"model.source=null model.class={saved.architecture}{kwargs} model.weights={model.source}"
        raise ConfigError(Problem(what, key="model.source", fix=fix))
    network = _build_saved(saved, place)
    head = find_head(network, model.head or saved.head)
    if saved.label_names == label_names:
        return network, []
    replace_head(network, head, len(label_names))
    return network, [f"the head {head} is new: {model.source} tells other classes apart"]


def _fitted(network: nn.Module, model: Model, label_names: list[str], is_trained: bool) -> tuple[nn.Module, list[str]]:
    """Puts model.weights into a network, and a head for these classes onto it."""
    head = find_head(network, model.head)
    notes, keeps_head = [], not is_trained
    if model.weights is not None:
        path = locate_weights(model.weights)
        keeps_head = put_weights(network, rename(read_weights(path), model.key_map), head, str(path))
    num_outputs = head_size(network, head)
    if num_outputs != len(label_names) or not keeps_head:
        replace_head(network, head, len(label_names))
        notes.append(
            f"the head {head} is new: {len(label_names)} classes" + (f" instead of {num_outputs}" if num_outputs != len(label_names) else "")
        )
    return network, notes


def _build_saved(saved: Classifier, folder: Path) -> nn.Module:
    if saved.library == "torchvision":
        network = torchvision_models.build(TorchvisionModel(saved.architecture, None), with_weights=False)
    else:
        module, _, name = saved.architecture.partition(":")
        network = build_own_model(OwnClass(module, name), saved.kwargs, folder / "code")
    head = find_head(network, saved.head)
    if head_size(network, head) != len(saved.label_names):
        replace_head(network, head, len(saved.label_names))
    put_weights(network, read_weights(folder / "model.safetensors"), head, str(folder))
    return network


def _processor(classifier: Classifier) -> dict[str, Any]:
    """Returns what transformers' pipeline needs to show its network a picture as ours does."""
    edges = {"height": classifier.size, "width": classifier.size}
    cut = {"size": {"shortest_edge": classifier.resize}, "do_center_crop": True, "crop_size": edges}
    kind: dict[str, Any] = {"image_processor_type": "ViTImageProcessor", "size": edges}
    if classifier.resize is not None:
        kind = {"image_processor_type": "CLIPImageProcessor", **cut}
    return {
        **kind,
        "do_resize": True,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": classifier.mean,
        "image_std": classifier.std,
    }


def set_dropout(network: nn.Module, model: Model) -> None:
    """Gives every dropout layer the probability model.dropout.

    Raises:
        ConfigError: there is none.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    if not layers and model.dropout:  # 0 is what a network without dropout has
        raise ConfigError(Problem(f"{type(network).__name__} has no dropout to set", key="model.dropout", fix="model.dropout=null"))
    for layer in layers:
        assert model.dropout is not None
        layer.p = model.dropout


def _is_transformers(network: Any) -> bool:
    return hasattr(network, "save_pretrained") and hasattr(network, "config")


def _without_shared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns contiguous tensors, of those that share memory (tied weights) the first; safetensors refuses to write one twice."""
    kept: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        kept[name] = tensor.contiguous()
    return kept
