"""The global order of samples, and which of them each rank computes: the same training on any world size.

The order is a function of (seed, epoch, sample lengths) alone. A global batch is the same set of samples whatever the
number of processes; only its division into micro-batches changes. The position is the number of samples consumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from launch.config.resolve import BatchArithmetic, steps_per_epoch

Indices = NDArray[np.int64]

LENGTH_WINDOW_BATCHES = 64
"""Global batches whose samples are sorted by length together; the order of the batches is then shuffled again."""


class MicroBatch(NamedTuple):
    """What one process computes at once.

    Args:
        keys: (epoch, index) of each sample; the pair seeds the sample's own randomness.
        is_padding: True for a stand-in that keeps a rank without samples in step; its loss has weight 0.
    """

    keys: tuple[tuple[int, int], ...]
    is_padding: bool = False


class RankStep(NamedTuple):
    """One optimizer step of one rank."""

    step: int
    epoch: int
    micro_batches: tuple[MicroBatch, ...]


def global_batches(num_samples: int, batch_size: int, seed: int, epoch: int, lengths: Sequence[int] | Indices | None = None) -> list[Indices]:
    """Returns the samples of each optimizer step of one epoch, longest first inside a batch when lengths are given.

    Every sample comes exactly once. The last batch holds the remainder, drawn before lengths are looked at.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    order = random.permutation(num_samples)
    full = num_samples // batch_size * batch_size
    batches = [order[start : start + batch_size] for start in range(0, full, batch_size)]
    rest = order[full:]
    if lengths is not None:
        known = np.asarray(lengths)
        batches = grouped_by_length(batches, known, random)
        rest = _longest_first(rest, known)
    return [*batches, rest] if len(rest) else batches


def split_over_ranks(batch: Indices, epoch: int, arithmetic: BatchArithmetic) -> list[tuple[MicroBatch, ...]]:
    """Returns each rank's micro-batches of one global batch; all ranks get equally many.

    Neighbours in the batch stay together, so lengths that were sorted cost little padding, and micro-batches are dealt
    in a snake (0 1 .. n n .. 1 0), so that no rank gets all the long ones.
    """
    world_size, micro = arithmetic.world_size, arithmetic.micro_batch_size
    rounds = -(-len(batch) // (world_size * micro))
    pieces = np.array_split(batch, rounds * world_size)
    ranks: list[list[MicroBatch]] = [[] for _ in range(world_size)]
    for number, piece in enumerate(pieces):
        turn, place = divmod(number, world_size)
        rank = place if turn % 2 == 0 else world_size - 1 - place
        chosen = piece if len(piece) else batch[-1:]
        ranks[rank].append(MicroBatch(tuple((epoch, int(index)) for index in chosen), is_padding=not len(piece)))
    return [tuple(micro_batches) for micro_batches in ranks]


class RankSteps:
    """The steps of one rank from `first_step` (0-based) to `total_steps`; jumps to its place, replays nothing."""

    def __init__(
        self,
        num_samples: int,
        arithmetic: BatchArithmetic,
        *,
        rank: int,
        seed: int,
        first_step: int,
        total_steps: int,
        lengths: Sequence[int] | Indices | None = None,
        batches_of: Callable[[int], list[Indices]] | None = None,
    ) -> None:
        """Places this rank in the order.

        Args:
            batches_of: epoch -> its global batches, where a task draws them itself; None: global_batches.
        """
        self._num_samples, self._arithmetic, self._rank = num_samples, arithmetic, rank
        self._first_step, self._total_steps = first_step, total_steps
        self._batches_of = batches_of or (lambda epoch: global_batches(num_samples, arithmetic.global_batch_size, seed, epoch, lengths))

    def __len__(self) -> int:
        return max(0, self._total_steps - self._first_step)

    def __iter__(self) -> Iterator[RankStep]:
        per_epoch = steps_per_epoch(self._num_samples, self._arithmetic.global_batch_size)
        batches: list[Indices] = []
        for step in range(self._first_step, self._total_steps):
            epoch, place = divmod(step, per_epoch)
            if not batches or place == 0:
                batches = self._batches_of(epoch)
            yield RankStep(step, epoch, split_over_ranks(batches[place], epoch, self._arithmetic)[self._rank])


def evaluation_batches(
    num_samples: int, batch_size: int, rank: int, world_size: int, lengths: Sequence[int] | Indices | None = None
) -> list[Indices]:
    """Returns this rank's batches of an evaluation; over all ranks every sample comes exactly once."""
    order = np.arange(num_samples) if lengths is None else _longest_first(np.arange(num_samples), np.asarray(lengths))
    return [order[start : start + batch_size] for start in range(0, num_samples, batch_size)][rank::world_size]


def samples_consumed(step: int, num_samples: int, global_batch_size: int) -> int:
    """Returns how many samples the first `step` optimizer steps saw."""
    epochs, place = divmod(step, steps_per_epoch(num_samples, global_batch_size))
    return epochs * num_samples + min(place * global_batch_size, num_samples)


def samples_in_step(step: int, num_samples: int, global_batch_size: int) -> int:
    """Returns how many samples optimizer step number `step` (from 1) sees; the last of an epoch may see fewer."""
    return samples_consumed(step, num_samples, global_batch_size) - samples_consumed(step - 1, num_samples, global_batch_size)


def grouped_by_length(batches: list[Indices], lengths: Indices, random: np.random.Generator) -> list[Indices]:
    """Returns the same samples in batches of neighbours in length, within windows of many batches; the longest first inside a batch.

    An epoch has four windows at least: batches that are sorted over all of a small set are so unlike each other that a short training learns less.
    """
    grouped: list[Indices] = []
    size = min(LENGTH_WINDOW_BATCHES, max(1, len(batches) // 4))
    for start in range(0, len(batches), size):
        window = batches[start : start + size]
        ordered = np.split(_longest_first(np.concatenate(window), lengths), len(window))
        grouped += [ordered[place] for place in random.permutation(len(ordered))]
    return grouped


def _longest_first(indices: Indices, lengths: Indices) -> Indices:
    return indices[np.argsort(-lengths[indices], kind="stable")]
