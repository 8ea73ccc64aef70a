"""Dropout of a CPU: torch's distribution, from torch's random state, in training alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainers.models.cpu_dropout import CpuDropout, use_cpu_dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.999])
def test_numbers_are_dropped_as_often_as_asked_and_the_mean_stays(probability: float) -> None:
    torch.manual_seed(0)
    dropped = CpuDropout(probability)(torch.ones(1001, 999))
    assert float((dropped == 0).float().mean()) == pytest.approx(probability, abs=2e-3)
    assert float(dropped.double().mean()) == pytest.approx(1.0, abs=0.04)
    assert len(dropped.unique()) == 2


def test_a_mask_is_independent_of_its_neighbours_in_the_same_random_word() -> None:
    torch.manual_seed(0)
    kept = (CpuDropout(0.5)(torch.ones(40_000)) > 0).float().view(-1, 4)
    assert float((torch.corrcoef(kept.T) - torch.eye(4)).abs().max()) < 0.03


def test_the_same_random_state_drops_the_same_numbers_and_the_gradient_follows_them() -> None:
    values = torch.ones(7, 5, requires_grad=True)
    torch.manual_seed(3)
    first = CpuDropout(0.3)(values)
    torch.manual_seed(3)
    assert torch.equal(CpuDropout(0.3)(values), first)
    first.sum().backward()
    assert torch.equal(values.grad, first.detach())


def test_evaluation_and_no_dropout_change_nothing_and_draw_nothing() -> None:
    values, state = torch.rand(3, 3), torch.get_rng_state()
    assert torch.equal(CpuDropout(0.3).eval()(values), values)
    assert torch.equal(CpuDropout(0.0)(values), values)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(CpuDropout(1.0)(values).abs().max()) == 0


def test_every_dropout_of_a_network_is_replaced_and_its_weights_keep_their_names() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.4), nn.Dropout2d(0.5)))
    names = list(network.state_dict())
    use_cpu_dropout(network)
    assert [type(module).__name__ for module in network.modules() if "Dropout" in type(module).__name__] == ["CpuDropout", "CpuDropout", "Dropout2d"]
    assert (network[1].p, network[2][0].p, list(network.state_dict())) == (0.2, 0.4, names)
