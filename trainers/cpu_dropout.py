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
        if not self.training or self.p in (0, 1) or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        num_dropped = round(self.p * _LEVELS)
        words = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        keep = words.view(torch.int16)[: input.numel()].view(input.shape) >= num_dropped - _LEVELS // 2
        return input * keep.to(input.dtype).mul_(_LEVELS / (_LEVELS - num_dropped))


def use_cpu_dropout(network: nn.Module) -> None:
    """Replaces every nn.Dropout of a network; GPUs and compiled graphs go on with torch's."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout and not child.inplace:
                setattr(module, name, CpuDropout(child.p))
