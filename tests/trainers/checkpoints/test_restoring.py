from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from launch.config import experiment as config
from launch.config.errors import StateError
from trainers.checkpoints.named_state import group_options, named_optimizer_state
from trainers.checkpoints.restoring import SavedWeights, find_misfit, refuse_other_optimizer, renew_options, restore_schedule, restore_weights
from trainers.optimizers import build_schedule


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight


@pytest.mark.parametrize(
    ("saved", "now", "words"),
    [
        (nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(4, 2)), "0.weight is (2, 3) in the checkpoint and (2, 4) here"),
        (nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), "1.weight (2, 2) is not in the checkpoint"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(3, 2)), "1.bias (2,) is not in this model"),
    ],
)
def test_first_tensor_that_does_not_fit_is_named(tmp_path: Path, saved: nn.Module, now: nn.Module, words: str) -> None:
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(StateError) as refusal:
        restore_weights(SavedWeights(tmp_path / "model.safetensors"), now)
    assert f"the weights do not fit this model: {words}" in str(refusal.value)
    assert "a new run for the other model" in str(refusal.value)


def test_tied_weights_that_were_saved_once_fit(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    save_model(model, str(tmp_path / "model.safetensors"))
    assert find_misfit(SavedWeights(tmp_path / "model.safetensors"), other) is None
    restore_weights(SavedWeights(tmp_path / "model.safetensors"), other)
    assert torch.equal(other.b.weight, model.a.weight)


def test_state_of_another_optimizer_or_of_other_parameters_is_refused(tmp_path: Path) -> None:
    model, smaller = nn.Linear(3, 2), nn.Linear(3, 2, bias=False)
    adam = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    adam.step()
    saved = named_optimizer_state(model, adam)
    refuse_other_optimizer(saved, model, adam, tmp_path)
    with pytest.raises(StateError, match="of another optimizer than SGD"):
        refuse_other_optimizer(saved, model, torch.optim.SGD(model.parameters()), tmp_path)
    with pytest.raises(StateError, match="of bias, which is not trained here"):
        refuse_other_optimizer(saved, smaller, torch.optim.AdamW(smaller.parameters()), tmp_path)
    with pytest.raises(StateError, match="in 1 groups of parameters, and here are 2"):
        refuse_other_optimizer(saved, model, torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias]}]), tmp_path)


def rates(name: str, length: int, steps: int, state: dict | None = None) -> tuple[list[float], dict]:
    """Returns the learning rates of the next steps, and the schedule's and the optimizer's state after them."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    schedule = build_schedule(optimizer, config.Schedule(name=name), length, 10)
    if state:
        optimizer.load_state_dict(state["optimizer"])
        restore_schedule(schedule, state["schedule"], is_new_curve=state["length"] != length)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found, {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "length": length}


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "polynomial", "one_cycle", "wsd"])
def test_schedule_of_a_new_length_goes_on_as_if_it_had_always_been_so_long(name: str) -> None:
    whole, _ = rates(name, 20, 20)
    _, at_its_end = rates(name, 10, 10)
    assert rates(name, 20, 10, at_its_end)[0] == pytest.approx(whole[10:], abs=1e-12)
    _, midway = rates(name, 10, 5)
    assert rates(name, 10, 5, midway)[0] == rates(name, 10, 10)[0][5:]


def test_schedule_that_is_shorter_than_what_was_trained_is_put_back_without_complaint() -> None:
    _, late = rates("one_cycle", 20, 15)
    rates("one_cycle", 10, 0, late)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "polynomial", "one_cycle", "wsd", "plateau"])
def test_a_rate_that_was_changed_by_force_is_followed_from_the_next_step_on(name: str) -> None:
    def build(lr: float) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), lr=lr, weight_decay=lr)
        return optimizer, build_schedule(optimizer, config.Schedule(name=name, patience=0), 10, 10)  # type: ignore[arg-type]

    def step(optimizer: torch.optim.Optimizer, schedule: Any) -> float:
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step(1.0) if name == "plateau" else schedule.step()
        return rate

    old, always, now = build(0.1), build(0.4), build(0.4)
    for _ in range(4):
        step(*old)
        step(*always)
    built_with, peaks = group_options(now[0]), list(getattr(now[1], "base_lrs", ()))
    now[0].load_state_dict(old[0].state_dict())
    renew_options(now[0], built_with, 4.0, now[1])
    restore_schedule(now[1], old[1].state_dict(), True, peaks)
    assert [step(*now) for _ in range(5)] == pytest.approx([step(*always) for _ in range(5)], rel=1e-12)
    assert now[0].param_groups[0]["weight_decay"] == 0.4
