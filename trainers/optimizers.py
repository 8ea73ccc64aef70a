"""Builds the optimizer, the learning-rate schedule, and which parameters they move."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from launch.config import experiment as config
from launch.config.errors import ConfigError, Problem

_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)\.")
_FIRST = re.compile(r"embed|conv1|stem|patch", re.IGNORECASE)


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> int:
    """Takes gradients from the parameters whose name matches a shell pattern; returns how many numbers were frozen.

    Raises:
        ConfigError: a pattern that matches nothing, or nothing is left to train.
    """
    frozen = 0
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                Problem(
                    f"{pattern!r} matches no parameter", key="model.freeze", allowed=f"names like {names[0]}, {names[len(names) // 2]}, {names[-1]}"
                )
            )
    for name, parameter in model.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            Problem("every parameter is frozen: nothing is left to train", key="model.freeze", fix="leave the head out of the patterns")
        )
    return frozen


def set_training_mode(model: nn.Module) -> None:
    """Puts the model into training mode, and its wholly frozen parts into evaluation mode (no dropout, fixed statistics)."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def build_optimizer(model: nn.Module, options: config.Optimizer, thawed: Collection[str] = ()) -> Optimizer:
    """Returns the optimizer over the parameters that are trained, and those that will be; biases and normalisation weights are not decayed.

    Args:
        thawed: names of parameters that are frozen now (train.unfreeze_at); without a gradient, a step leaves them as they are.
    """
    groups = parameter_groups(model, options.lr, options.weight_decay, options.layer_decay, thawed)
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov)
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=True)


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, layer_decay: float | None, thawed: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Returns groups of parameters by (learning rate, weight decay), in the order of the model.

    With layer decay a parameter d layers below the head has `lr * layer_decay ** d` (ULMFiT, arXiv:1801.06146, section 3.2).
    """
    num_layers = 1 + max((int(match[1]) for name, _ in model.named_parameters() if (match := _LAYER.search(name))), default=-1)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and name not in thawed:
            continue
        depth = _depth_below_head(name, num_layers) if layer_decay else 0
        key = (lr * (layer_decay or 1.0) ** depth, weight_decay if parameter.ndim > 1 else 0.0)
        group = groups.setdefault(key, {"params": [], "lr": key[0], "weight_decay": key[1]})
        group["params"].append(parameter)
    return list(groups.values())


def build_schedule(optimizer: Optimizer, options: config.Schedule, total_steps: int, steps_per_epoch: int) -> LRScheduler:
    """Returns the schedule, to be stepped once an optimizer step (plateau: once an evaluation)."""
    warmup = options.warmup.in_steps(steps_per_epoch, total_steps) if options.warmup else 0
    peaks = [group["lr"] for group in optimizer.param_groups]
    if options.name == "plateau":
        return ReduceLROnPlateau(optimizer, mode="min", factor=options.factor, patience=options.patience)
    if options.name == "one_cycle":
        rise = min(max(warmup / total_steps, 1 / total_steps), 1.0) if options.warmup else 0.3
        return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps + 1, pct_start=rise, cycle_momentum=False)
    from transformers import optimization

    if options.name == "constant":
        return optimization.get_constant_schedule_with_warmup(optimizer, warmup)
    if options.name == "linear":
        return optimization.get_linear_schedule_with_warmup(optimizer, warmup, total_steps)
    if options.name == "cosine":
        return optimization.get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup, total_steps, min_lr_rate=options.min_lr_ratio)
    if options.name == "polynomial":
        end = options.min_lr_ratio * max(peaks)
        return optimization.get_polynomial_decay_schedule_with_warmup(optimizer, warmup, total_steps, lr_end=end, power=options.power)
    decay = options.decay.in_steps(steps_per_epoch, total_steps) if options.decay else total_steps // 10
    return optimization.get_wsd_schedule(optimizer, warmup, decay, num_training_steps=total_steps, min_lr_ratio=options.min_lr_ratio)


def _depth_below_head(name: str, num_layers: int) -> int:
    match = _LAYER.search(name)
    if match:
        return num_layers - int(match[1])
    return num_layers + 1 if _FIRST.search(name) else 0
