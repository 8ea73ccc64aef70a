"""Batches of samples for one rank: collated micro-batches of a training step, and batches of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainers.sampler import Indices, RankStep, RankSteps
from trainers.stopping import ignore_stop_signals

Batch = dict[str, Tensor]
Collate = Callable[[list[Any]], Batch]


class StepBatches(NamedTuple):
    """The collated micro-batches of one optimizer step on this rank; `is_padding` marks those of weight 0."""

    step: int
    epoch: int
    batches: list[Batch]
    is_padding: list[bool]


class _Steps(Dataset[StepBatches]):
    """Collates a whole step at once, so that a data worker hands over what one optimizer step needs."""

    def __init__(self, samples: Any, collate: Collate) -> None:
        self._samples, self._collate = samples, collate

    def __getitem__(self, request: RankStep) -> StepBatches:
        batches = [self._collate([self._samples[key] for key in micro.keys]) for micro in request.micro_batches]
        return StepBatches(request.step, request.epoch, batches, [micro.is_padding for micro in request.micro_batches])


class _Batches(Dataset[Batch]):
    def __init__(self, samples: Any, collate: Collate) -> None:
        self._samples, self._collate = samples, collate

    def __getitem__(self, indices: Indices) -> Batch:
        return self._collate([self._samples[0, int(index)] for index in indices])


def build_step_loader(samples: Any, collate: Collate, steps: RankSteps, num_workers: int, pin_memory: bool) -> DataLoader[StepBatches]:
    """Returns this rank's training steps in order; draws nothing from the global random state."""
    return _loader(_Steps(samples, collate), steps, num_workers, pin_memory)


def build_evaluation_loader(samples: Any, collate: Collate, batches: Sequence[Indices], num_workers: int, pin_memory: bool) -> DataLoader[Batch]:
    """Returns this rank's batches of an evaluation in order."""
    return _loader(_Batches(samples, collate), batches, num_workers, pin_memory)


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch on `device`; the copy does not wait when its memory is pinned."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def _loader(dataset: Any, sampler: Any, num_workers: int, pin_memory: bool) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=ignore_stop_signals if num_workers else None,
        generator=torch.Generator(),  # a loader draws a seed when it starts: not from the state that dropout draws from
    )
