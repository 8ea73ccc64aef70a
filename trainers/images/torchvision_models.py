"""torchvision's models by name, their published weights from torch's cache (TORCH_HOME) or, where there is a network, from their authors."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from launch.config.errors import ConfigError, Problem, suggest
from launch.config.hub import is_reachable
from launch.config.sources import TorchvisionModel


def build(source: TorchvisionModel, with_weights: bool) -> nn.Module:
    """Returns the network, with its published weights if they are wanted, else with random ones from torch's random state.

    Raises:
        ConfigError: no such model or weights, or weights that are neither cached nor to be had.
    """
    from torchvision.models import get_model

    weights = _weights(source) if with_weights else None
    _check_name(source)
    network: nn.Module = get_model(source.name, weights=None)
    if weights is not None:
        state = torch.load(fetch(source), map_location="cpu", weights_only=True)
        network.load_state_dict({_OLD_DENSENET_NAME.sub(r"\1\2.", name): tensor for name, tensor in state.items()})
    return network


def statistics(source: TorchvisionModel) -> tuple[list[float], list[float]] | None:
    """Returns mean and standard deviation of the channels that the weights were trained with; None for random weights."""
    weights = _weights(source)
    if weights is None:
        return None
    transforms = weights.transforms()
    return list(transforms.mean), list(transforms.std)


def weights_path(source: TorchvisionModel) -> Path | None:
    """Returns where torch's cache keeps the weights, there or not; None for random weights."""
    weights = _weights(source)
    return None if weights is None else Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]


def fetch(source: TorchvisionModel) -> Path:
    """Returns the file of the published weights, downloaded once by whichever process comes first, its hash checked.

    Raises:
        ConfigError: it is not cached, and its server does not answer.
    """
    import filelock

    path, weights = weights_path(source), _weights(source)
    assert path is not None
    assert weights is not None
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if path.is_file():
                return path
            if not is_reachable(weights.url):
                raise OSError("their server does not answer")
            print(f"downloading the weights of {source.name}: {weights.url}", file=sys.stderr)
            torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=_hash_prefix(path), progress=False)
    except (OSError, RuntimeError) as error:
        what = f"the weights {weights.name} of {source.name} are not in torch's cache ({path}) and cannot be downloaded: {error}"
        fix = "fetch them where there is a network and share the folder (TORCH_HOME=DIR); or weights=null for random ones, or model.weights=FILE"
        raise ConfigError(Problem(what, key="model.source", fix=fix)) from error
    return path


_OLD_DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
"""DenseNet's published weights are older than its present names: denselayer1.norm.1.weight is denselayer1.norm1.weight now."""

_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def _check_name(source: TorchvisionModel) -> None:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if source.name not in names:
        near = suggest(source.name, names)
        what = f"torchvision {torchvision.__version__} has no classifier {source.name!r}" + (f"; did you mean {near!r}?" if near else "")
        raise ConfigError(Problem(what, key="model.source", allowed=", ".join(names)))
    if source.name in _WITH_AUXILIARY_HEADS:
        raise ConfigError(Problem(f"{source.name} has auxiliary heads, which this task does not train", key="model.source", allowed=", ".join(names)))


def _weights(source: TorchvisionModel) -> Any:
    from torchvision.models import get_model_weights

    _check_name(source)
    if source.weights is None:
        return None
    published = get_model_weights(source.name)
    name = source.weights.rpartition(".")[2]
    if name in published.__members__:
        return published[name]
    near = suggest(name, published.__members__)
    what = f"{source.name} has no weights {name!r}" + (f"; did you mean {near!r}?" if near else "")
    raise ConfigError(Problem(what, key="model.source", allowed=", ".join(["null", *published.__members__])))


def _hash_prefix(path: Path) -> str | None:
    """Returns the beginning of the file's sha256, which torch's file names end in (resnet50-11ad3fa6.pth)."""
    prefix = path.stem.rpartition("-")[2]
    return prefix if len(prefix) >= 8 and all(c in "0123456789abcdef" for c in prefix) else None
