"""Dropout whose masks cost a CPU little: 16 random bits decide a number, where torch draws and compares one float after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class CpuDropout(nn.Dropout):
    """nn.Dropout with the same distribution, its probability rounded to a 65,536th, from torch's own random state.

    torch 2.15 draws 7 ns a number on one thread, however many there are; this draws 1 ns (AMD EPYC, docs/throughput.md).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name in torch)
        if not self.training or self.p in (0, 1) or not draws_words(input):
            return super().forward(input)
        return drop(input, self.p)


def draws_words(values: Tensor) -> bool:
    """Returns whether these numbers are dropped by words of 16 bits; GPUs and compiled graphs go on with torch's dropout."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def drop(values: Tensor, probability: float) -> Tensor:
    """Returns the values with some of them zero and the others enlarged, as functional.dropout does; 0 < probability < 1."""
    num_dropped = round(probability * _LEVELS)
    words = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    keep = words.view(torch.int16)[: values.numel()].view(values.shape) >= num_dropped - _LEVELS // 2
    return values * keep.to(values.dtype).mul_(_LEVELS / (_LEVELS - num_dropped))


def use_cpu_dropout(network: nn.Module) -> None:
    """Replaces every nn.Dropout of a network."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout and not child.inplace:
                setattr(module, name, CpuDropout(child.p))
