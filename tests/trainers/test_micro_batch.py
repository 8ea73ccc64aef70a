from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from launch.config.resolve import BatchArithmetic
from trainers.engine import Engine
from trainers.warm_up import fit_micro_batch, longest_samples
from trainers.world import World


class Limited:
    """A task whose forward pass has memory for so many samples."""

    num_samples = {"train": 10}  # noqa: RUF012

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, list[int]()

    def lengths(self, split: str) -> list[int]:
        return [3, 1, 9, 4, 1, 5, 9, 2, 6, 5]

    def dataset(self, split: str) -> dict[tuple[int, int], torch.Tensor]:
        return {(0, index): torch.ones(3) for index in range(10)}

    def collate(self, samples: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"inputs": torch.stack(samples)}

    def train_loss(self, model: nn.Module, batch: Any, label_smoothing: float) -> tuple[torch.Tensor, int]:
        self.tried.append(len(batch["inputs"]))
        if len(batch["inputs"]) > self.room:
            raise torch.OutOfMemoryError("no room")
        return model(batch["inputs"]).sum(), len(batch["inputs"])


@pytest.mark.parametrize(("room", "size", "tried"), [(8, 8, [8]), (3, 3, [8, 6, 4, 3]), (0, 8, [8, 6, 4, 3, 2, 1])])
def test_the_micro_batch_is_stepped_down_to_what_fits(room: int, size: int, tried: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    task, engine, model = Limited(room), Engine(World(), None, "fp32"), nn.BatchNorm1d(3)
    monkeypatch.setattr("trainers.warm_up.move_batch", lambda batch, device: batch)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    cpu, engine.device = engine.device, SimpleNamespace(type="cuda")  # type: ignore[assignment]
    fitted = fit_micro_batch(engine, task, model, BatchArithmetic(24, 8, 3, 1))  # type: ignore[arg-type]
    engine.device = cpu
    assert (fitted.micro_batch_size, fitted.gradient_accumulation_steps) == (size, 24 // size)
    assert task.tried == tried
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model.running_mean, torch.zeros(3))  # type: ignore[arg-type]


def test_the_longest_samples_are_tried_first() -> None:
    assert longest_samples(Limited(0), 4) == [2, 6, 8, 5]  # type: ignore[arg-type]
    assert len(longest_samples(Limited(0), 12)) == 12  # type: ignore[arg-type]
