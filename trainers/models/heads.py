"""The last layer of a classifier: found whatever its name, and replaced to fit the classes."""

from __future__ import annotations

from torch import nn

from launch.config.errors import ConfigError, Problem, suggest

MAX_CANDIDATES = 8


def find_head(network: nn.Module, name: str | None) -> str:
    """Returns the dotted name of the last layer: `name`, else the last linear layer, else the last 1 x 1 convolution.

    torchvision's is fc, classifier, classifier.6, heads.head and so on, each its network's last linear layer; SqueezeNet's is a
    convolution.

    Raises:
        ConfigError: there is none, or `name` is no layer that can be one; names the candidates.
    """
    layers = {path: module for path, module in network.named_modules() if isinstance(module, nn.Linear) or _is_pointwise(module)}
    if name is not None:
        if name in layers:
            return name
        everything = dict(network.named_modules())
        what = f"{name!r} is a {type(everything[name]).__name__}, no linear layer" if name in everything else f"there is no layer {name!r}"
        near = suggest(name, layers)
        raise ConfigError(Problem(what, key="model.head", allowed=_listed(list(layers)), fix=f"model.head={near}" if near else None))
    linear = [path for path, module in layers.items() if isinstance(module, nn.Linear)]
    if linear:
        return linear[-1]
    if layers:
        return list(layers)[-1]
    leaves = [f"{path} ({type(module).__name__})" for path, module in network.named_modules() if path and not list(module.children())]
    what = f"{type(network).__name__} has no linear layer and no 1 x 1 convolution that could be its head"
    raise ConfigError(Problem(what, key="model.head", allowed=f"such a layer; its last ones are {_listed(leaves)}"))


def head_size(network: nn.Module, head: str) -> int:
    """Returns how many classes the head tells apart."""
    layer = network.get_submodule(head)
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # type: ignore[return-value]


def replace_head(network: nn.Module, head: str, num_classes: int) -> None:
    """Puts a new last layer of the same kind in the old one's place, its weights drawn from torch's random state."""
    old = network.get_submodule(head)
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    else:
        assert isinstance(old, nn.Conv2d), old
        new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1, bias=old.bias is not None)
    parent, _, last = head.rpartition(".")
    setattr(network.get_submodule(parent), last, new)


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


def _listed(names: list[str]) -> str:
    return ("... " if len(names) > MAX_CANDIDATES else "") + (", ".join(names[-MAX_CANDIDATES:]) or "none")
