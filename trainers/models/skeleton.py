"""A model without its weights: what writes whole ones in the library's format, while the trained model is divided."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def without_weights(model: nn.Module) -> nn.Module:
    """Returns a copy of a module whose parameters and buffers have shapes and no memory."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)
