"""What a step does beside torch's own: nothing where gradients are within their norm, and torch's clipping where they are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers.engine import Engine, clip_gradients
from trainers.world import World


def layer_with_gradients(size: float) -> nn.Linear:
    layer = nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), size), torch.zeros(2)
    return layer


def test_gradients_within_the_norm_are_left_to_the_bit() -> None:
    layer = layer_with_gradients(0.1)
    norm = clip_gradients(layer.parameters(), 0.3)
    assert float(norm) == pytest.approx(0.1 * 6**0.5)
    assert torch.equal(layer.weight.grad, torch.full((2, 3), 0.1))


def test_larger_gradients_become_what_torch_makes_of_them() -> None:
    ours, theirs = layer_with_gradients(7.0), layer_with_gradients(7.0)
    assert torch.equal(clip_gradients(ours.parameters(), 0.5), nn.utils.clip_grad_norm_(theirs.parameters(), 0.5))
    assert torch.equal(ours.weight.grad, theirs.weight.grad)
    assert float(ours.weight.grad.norm()) == pytest.approx(0.5, rel=1e-5)


def test_without_a_limit_the_norm_is_told_and_nothing_clipped() -> None:
    layer = layer_with_gradients(1e3)
    layer.bias.grad = None
    assert float(clip_gradients(layer.parameters(), None)) == pytest.approx(1e3 * 6**0.5)
    assert torch.equal(layer.weight.grad, torch.full((2, 3), 1e3))


def test_the_optimizer_of_one_process_is_torch_s_own() -> None:
    model, optimizer = Engine(World(), None, "fp32").prepare(nn.Linear(2, 2), lambda module: torch.optim.AdamW(module.parameters()))
    assert (type(model), type(optimizer)) == (nn.Linear, torch.optim.AdamW)


def test_sums_of_one_process_are_its_own_numbers() -> None:
    assert Engine(World(), None, "fp32").sum_over_ranks([torch.tensor(2), 0.1, 3]) == [2.0, 0.1, 3.0]
