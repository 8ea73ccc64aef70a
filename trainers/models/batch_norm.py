"""BatchNorm as model.batch_norm wants it: trained on micro-batches, frozen, or over all ranks."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from launch.config.errors import ConfigError, Problem


def set_batch_norm(network: nn.Module, how: Literal["train", "frozen", "sync"]) -> nn.Module:
    """Returns the network with its BatchNorm layers as wanted.

    frozen: their weights are not trained, and set_training_mode keeps a layer whose weights are all frozen in evaluation mode, so
    its statistics stay those of the pretrained weights. sync: torch's SyncBatchNorm.

    Raises:
        ConfigError: there are none to freeze or to join, or one has no weights that could be frozen.
    """
    if how == "train":
        return network
    layers = find_batch_norms(network)
    if not layers:
        raise ConfigError(Problem(f"{type(network).__name__} has no BatchNorm", key="model.batch_norm", fix="model.batch_norm=train"))
    if how == "sync":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, layer in layers.items():
        if not layer.affine or layer.running_mean is None:
            what = f"{name} has no {'statistics' if layer.affine else 'weights'} that could be kept"
            raise ConfigError(Problem(what, key="model.batch_norm", fix="model.batch_norm=train"))
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
    return network


def find_batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Returns name -> BatchNorm layer."""
    return {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}


def widen_batch_norm(network: nn.Module) -> None:
    """Lets BatchNorm layers compute with their weights in fp32 where an engine holds them in 16 bits: their statistics stay in fp32, and torch
    takes no mixture of the two. Call it before the engine divides the weights."""
    for layer in find_batch_norms(network).values():
        layer.forward = partial(_forward_in_fp32, layer)  # type: ignore[method-assign]


def _forward_in_fp32(layer: _BatchNorm, features: Tensor) -> Tensor:
    held = {name: parameter for name, parameter in layer._parameters.items() if parameter is not None}
    try:
        layer._parameters.update({name: parameter.float() for name, parameter in held.items()})  # type: ignore[misc]
        normalised: Tensor = type(layer).forward(layer, features)
        return normalised
    finally:
        layer._parameters.update(held)


def batch_norm_warning(network: nn.Module, micro_batch_size: int, global_batch_size: int) -> str | None:
    """Returns a line where statistics of micro-batches would make the losses depend on how a batch is split; None where they do not."""
    trained = [layer for layer in find_batch_norms(network).values() if any(parameter.requires_grad for parameter in layer.parameters())]
    trained = [layer for layer in trained if not isinstance(layer, nn.SyncBatchNorm)]
    if not trained or micro_batch_size == global_batch_size:
        return None
    return (
        f"warning: {len(trained)} BatchNorm layers see micro-batches of {micro_batch_size}, not the global batch of {global_batch_size}: "
        "losses depend on the number of processes (1 to 8 % measured); model.batch_norm=frozen avoids it, or sync on GPUs"
    )
