"""Where a network's frozen body ends and its trained head begins: found by watching it compute, and proved before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from trainers.optimizers import set_training_mode

FEATURES = "features"
"""What the forward pass of a model with attach_head is given instead of its inputs."""


class NoSeamError(Exception):
    """The head cannot be trained apart from the body; says why."""


class _Reached(Exception):
    """The head is about to compute."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


@dataclass(frozen=True)
class Seam:
    """The layers of the head in the order in which they compute, by name, and what goes into the first of them for one batch."""

    head: tuple[str, ...]
    features: Tensor


def find_seam(model: nn.Module, logits: Callable[[], Tensor]) -> Seam:
    """Returns where the head begins: at the first layer that is trained, or draws random numbers.

    The proof is on the batch that `logits` computes: the head's layers, one after the other, give the very logits of the whole model,
    and its frozen body gives in training what it gives in an evaluation. The model is in evaluation mode afterwards.

    Args:
        logits: calls the model on a batch and returns what the loss is made of.

    Raises:
        NoSeamError: there is no such place.
    """
    set_training_mode(model)
    live = {name for name, layer in _leaves(model) if _is_live(layer)}
    _refuse_trained_outside(model)
    model.eval()
    with torch.no_grad():
        calls, expected = _watch(model, logits)
        start = next((number for number, (name, _) in enumerate(calls) if name in live), None)
        if not start or not _has_frozen(model, calls[:start]):
            raise NoSeamError("no layer before the first one that is trained is frozen")
        head, features = tuple(name for name, _ in calls[start:]), calls[start][1]
        if set(_trained(model)) - set(head):
            raise NoSeamError(f"{sorted(set(_trained(model)) - set(head))[0]} is trained, and did not take part in computing a batch")
        if len(features) != len(expected):
            raise NoSeamError(f"what goes into {head[0]} is not one vector a sample")
        if not _same(through_head(model, head, features), expected):
            raise NoSeamError(f"from {head[0]} on the model does more than one layer after the other")
        set_training_mode(model)
        in_training = compute_features(model, head, logits)
        model.eval()
    if not _same(in_training, features):
        raise NoSeamError("its frozen part does not compute the same in training as in an evaluation")
    return Seam(head, features)


def compute_features(model: nn.Module, head: Sequence[str], logits: Callable[[], Tensor]) -> Tensor:
    """Returns what goes into the head for the batch that `logits` computes; nothing behind it is computed."""

    def leave(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        raise _Reached(inputs[0])

    hook = model.get_submodule(head[0]).register_forward_pre_hook(leave)
    try:
        logits()
    except _Reached as reached:
        return reached.features
    finally:
        hook.remove()
    raise AssertionError(f"{head[0]} was not called")


def through_head(model: nn.Module, head: Sequence[str], features: Tensor) -> Tensor:
    """Returns what the head's layers make of features, [B, C]."""
    for name in head:
        features = model.get_submodule(name)(features)
    return features


def attach_head(model: nn.Module, head: Sequence[str]) -> None:
    """Lets `model(features=...)` compute the head alone; called with anything else the model is as before.

    The forward pass of this one object is replaced, as Accelerate does for mixed precision, so that wrappers, saved names and the
    optimizer see the whole model.
    """
    whole = model.forward

    def forward(*inputs: Any, **named: Any) -> Any:
        return through_head(model, head, named[FEATURES]) if FEATURES in named else whole(*inputs, **named)

    model.forward = forward


def _watch(model: nn.Module, logits: Callable[[], Tensor]) -> tuple[list[tuple[str, Tensor]], Tensor]:
    """Returns (name of a layer, what goes into it) in the order of computing, and the logits."""
    calls: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = (*inputs, *named.values())
            calls.append((name, given[0] if len(given) == 1 and isinstance(given[0], Tensor) else torch.empty(0)))

        return hook

    hooks = [layer.register_forward_pre_hook(note(name), with_kwargs=True) for name, layer in _leaves(model)]
    try:
        return calls, logits()
    finally:
        for hook in hooks:
            hook.remove()


def _leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if not list(module.children())]


def _is_live(layer: nn.Module) -> bool:
    """Returns whether a layer in training is trained, random, or learns statistics."""
    is_trained = any(parameter.requires_grad for parameter in layer.parameters())
    return is_trained or (layer.training and (isinstance(layer, _NormBase) or (isinstance(layer, _DropoutNd) and layer.p > 0)))


def _trained(model: nn.Module) -> list[str]:
    return [name for name, layer in _leaves(model) if any(parameter.requires_grad for parameter in layer.parameters())]


def _has_frozen(model: nn.Module, calls: Sequence[tuple[str, Tensor]]) -> bool:
    return any(True for name, _ in calls for _ in model.get_submodule(name).parameters())


def _refuse_trained_outside(model: nn.Module) -> None:
    """Raises NoSeamError for a parameter that belongs to no layer of its own: nobody sees when it takes part."""
    for name, module in model.named_modules():
        if list(module.children()) and any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            raise NoSeamError(f"{name or type(model).__name__} holds trained parameters beside its layers")


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.float(), other.float())
