from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers.models.batch_norm import widen_batch_norm


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))


def test_batch_norm_of_16_bits_computes_beside_statistics_of_fp32() -> None:
    halved, whole, pixels = network(), network(), torch.randn(8, 1, 6, 6)
    for parameter in halved.parameters():
        parameter.data = parameter.data.bfloat16()
    names = list(halved.state_dict())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="expected scalar type"):
        halved(pixels)
    widen_batch_norm(halved)
    with torch.autocast("cpu", torch.bfloat16):
        halved(pixels).float().square().sum().backward()
        assert (halved(pixels) - whole(pixels)).abs().max() < 0.05
    assert list(halved.state_dict()) == names
    assert [parameter.dtype for parameter in halved.parameters()] == [torch.bfloat16] * 4
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.bfloat16 for parameter in halved.parameters())
    assert halved[1].running_mean.dtype == torch.float32
    assert halved[1].num_batches_tracked == 3  # the refused pass counted too
