from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.warm_up import settle_reduction_order


class Task:
    """Six samples of four numbers; says which it was asked for."""

    def __init__(self) -> None:
        self.num_samples = {"train": 6}
        self.asked: list[tuple[int, int]] = []

    def dataset(self, split: str) -> Task:
        return self

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        self.asked.append(key)
        return torch.full((4,), float(key[1] + 1))

    def collate(self, samples: list[Tensor]) -> dict[str, Tensor]:
        return {"x": torch.stack(samples)}

    def train_loss(self, model: nn.Module, batch: dict[str, Tensor], label_smoothing: float) -> tuple[Tensor, Tensor]:
        return model(batch["x"]).square().sum(), torch.tensor(len(batch["x"]))


def engine() -> Any:
    return SimpleNamespace(
        device=torch.device("cpu"), backward=lambda loss, count: loss.backward(), unwrap=lambda model: getattr(model, "module", model)
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_nothing_is_left_of_the_pass_but_the_order() -> None:
    model, task = DistributedDataParallel(network()), Task()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settle_reduction_order(engine(), task, model, num_samples=8)  # type: ignore[arg-type]
    assert task.asked == [(0, index % 6) for index in range(8)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())  # BatchNorm's statistics too
    assert all(parameter.grad is None for parameter in model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    assert model.reducer._rebuild_buckets() is False  # it has happened, before the first step


def test_one_process_makes_no_pass() -> None:
    task = Task()
    settle_reduction_order(engine(), task, network(), num_samples=2)  # type: ignore[arg-type]
    assert task.asked == []
