"""Which samples of several tasks make up each optimizer step: a function of (seed, epoch, sizes, lengths) alone, like trainers/sampler.py.

Every global batch is of one task (Liu et al., 2019, Multi-Task Deep Neural Networks, algorithm 1), so that its loss is that task's own mean:
the loop divides by the targets of the step, and a sentence with 20 tagged words beside one with a single label would weigh 20 times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from launch.config.resolve import steps_per_epoch
from trainers.sampler import Indices, evaluation_batches, grouped_by_length

_STREAM = 1
"""Tells the random numbers of the passes over a task from those of an epoch."""


def sampling_shares(sizes: Sequence[int], temperature: float) -> list[float]:
    """Returns each task's share of the samples, n^(1 / T) over their sum (Raffel et al., 2020, section 3.5.2).

    1: by size. The higher the temperature, the nearer to equal shares.
    """
    weights = np.asarray(sizes, np.float64) ** (1 / temperature)
    shares: list[float] = (weights / weights.sum()).tolist()
    return shares


def steps_of_tasks(sizes: Sequence[int], temperature: float, num_steps: int) -> list[int]:
    """Returns how many of `num_steps` are of each task: at least one, the rest by shares, the largest remainders rounded up."""
    wanted = [share * (num_steps - len(sizes)) for share in sampling_shares(sizes, temperature)]
    counts = [1 + int(steps) for steps in wanted]
    by_remainder = sorted(range(len(sizes)), key=lambda task: (int(wanted[task]) - wanted[task], task))
    for task in by_remainder[: num_steps - sum(counts)]:
        counts[task] += 1
    return counts


def mixed_batches(
    sizes: Sequence[int], temperature: float, batch_size: int, seed: int, epoch: int, lengths: Sequence[Indices] | None = None
) -> list[Indices]:
    """Returns the samples of each optimizer step of one epoch, numbered through all tasks: those of the second begin behind the first's.

    An epoch has as many steps as all samples together make, the last one the remainder. Each task is gone through pass by pass, every
    sample once a pass, on from where the epoch before left off.

    Args:
        lengths: of each task's samples; None: not grouped by length.
    """
    total = sum(sizes)
    num_steps = steps_per_epoch(total, batch_size)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    batches: list[Indices] = []
    for task, (offset, steps) in enumerate(zip(offsets(sizes), steps_of_tasks(sizes, temperature, num_steps), strict=True)):
        drawn = _stream(sizes[task], epoch * steps * batch_size, steps * batch_size, seed, task)
        own = np.split(drawn, steps)
        if lengths is not None:
            own = grouped_by_length(own, lengths[task], random)
        batches += [batch + offset for batch in own]
    mixed = [batches[place] for place in random.permutation(num_steps)]
    return [*mixed[:-1], mixed[-1][: total - (num_steps - 1) * batch_size]]


def separate_batches(sizes: Sequence[int], batch_size: int, lengths: Sequence[Indices]) -> list[Indices]:
    """Returns the batches of an evaluation, each of one task; every sample comes exactly once, numbered through all tasks."""
    return [
        batch + offset for task, offset in enumerate(offsets(sizes)) for batch in evaluation_batches(sizes[task], batch_size, 0, 1, lengths[task])
    ]


def offsets(sizes: Sequence[int]) -> list[int]:
    """Returns the number of each task's first sample."""
    return [0, *accumulate(sizes)][:-1]


def _stream(size: int, start: int, count: int, seed: int, task: int) -> Indices:
    """Returns `count` samples of a task from the endless row of its passes, each in an order of its own."""
    first, last = start // size, (start + count - 1) // size
    passes = [np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number, task, _STREAM]))) for number in range(first, last + 1)]
    return np.concatenate([random.permutation(size) for random in passes])[start - first * size :][:count]
