"""torchvision's models by name, their published weights from torch's cache (TORCH_HOME) or, where there is a network, from their authors."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem, suggest
from launch.config.hub import is_reachable
from launch.config.sources import TorchvisionModel


def build(source: TorchvisionModel, with_weights: bool) -> nn.Module:
    """Returns the network, with its published weights if they are wanted, else with random ones from torch's random state.

    Raises:
        ConfigError: no such model or weights, or weights that are neither cached nor to be had.
    """
    from torchvision.models import get_model

    check_name(source, CLASSIFICATION)
    weights = _weights(source) if with_weights else None
    network: nn.Module = get_model(source.name, weights=None)
    if weights is not None:
        network.load_state_dict({_OLD_DENSENET_NAME.sub(r"\1\2.", name): tensor for name, tensor in read_published(source).items()})
    return network


def read_published(source: TorchvisionModel) -> dict[str, Tensor]:
    """Returns name -> tensor of the published weights, downloaded if they are not cached.

    Raises:
        ConfigError: as fetch.
    """
    state: dict[str, Tensor] = torch.load(fetch(source), map_location="cpu", weights_only=True)
    return state


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

CLASSIFICATION = "classifier"
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def check_name(source: TorchvisionModel, library: str | None = None, prefix: str = "") -> None:
    """Raises ConfigError if torchvision has no such network, or none that a task trains.

    Args:
        library: which of torchvision's modules of models has them: classifier (the outermost), segmentation, detection; None: any.
        prefix: how their names begin in it.
    """
    import torchvision

    models = torchvision.models
    module = None if library is None else models if library == CLASSIFICATION else getattr(models, library)
    names = [name for name in models.list_models(module=module) if name.startswith(prefix)]
    if source.name not in names:
        near = suggest(source.name, names)
        what = f"torchvision {torchvision.__version__} has no {library or 'network'} {source.name!r}" + (f"; did you mean {near!r}?" if near else "")
        raise ConfigError(Problem(what, key="model.source", allowed=", ".join(names)))
    if source.name in _WITH_AUXILIARY_HEADS:
        raise ConfigError(Problem(f"{source.name} has auxiliary heads, which this task does not train", key="model.source", allowed=", ".join(names)))


def _weights(source: TorchvisionModel) -> Any:
    from torchvision.models import get_model_weights

    check_name(source)
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
