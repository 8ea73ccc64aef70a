from __future__ import annotations

import numpy as np
import pytest

from launch.config.resolve import BatchArithmetic, resolve_batches
from trainers.sampler import RankSteps, evaluation_batches, global_batches, samples_consumed, split_over_ranks

LENGTHS = np.random.default_rng(0).integers(3, 80, size=1003)


def seen_by_step(world_size: int, micro: int, first_step: int = 0, total_steps: int = 70, batch: int = 32) -> list[set[tuple[int, int]]]:
    arithmetic = resolve_batches(batch, world_size, micro)
    ranks = [RankSteps(1003, arithmetic, rank=r, seed=7, first_step=first_step, total_steps=total_steps, lengths=LENGTHS) for r in range(world_size)]
    return [
        {key for step in steps for micro in step.micro_batches if not micro.is_padding for key in micro.keys} for steps in zip(*ranks, strict=True)
    ]


@pytest.mark.parametrize(("world_size", "micro"), [(1, 8), (2, 16), (2, 4), (4, 8), (8, 1)])
def test_every_step_sees_the_same_samples_on_any_world_size(world_size: int, micro: int) -> None:
    assert seen_by_step(world_size, micro) == seen_by_step(1, 32)


def test_an_epoch_sees_each_sample_once() -> None:
    for lengths in (None, LENGTHS):
        batches = global_batches(1003, 32, seed=1, epoch=0, lengths=lengths)
        assert sorted(np.concatenate(batches)) == list(range(1003))
        assert [len(batch) for batch in batches] == [32] * 31 + [11]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first = global_batches(1003, 32, seed=1, epoch=0)[0].tolist()
    assert first != global_batches(1003, 32, seed=1, epoch=1)[0].tolist()
    assert first != global_batches(1003, 32, seed=2, epoch=0)[0].tolist()
    assert first == global_batches(1003, 32, seed=1, epoch=0)[0].tolist()


def test_the_last_batch_is_not_chosen_by_length() -> None:
    assert set(global_batches(1003, 32, 5, 0, LENGTHS)[-1]) == set(global_batches(1003, 32, 5, 0)[-1])


@pytest.mark.parametrize(("num_samples", "most"), [(10_030, 0.05), (1003, 0.15)])
def test_grouping_by_length_cuts_padding(num_samples: int, most: float) -> None:
    """Less in a small set, whose epoch has four windows all the same."""
    lengths = np.resize(LENGTHS, num_samples)

    def padded(batches: list[np.ndarray]) -> float:
        computed = sum(len(batch) * lengths[batch].max() for batch in batches)
        return 1 - lengths.sum() / computed

    assert padded(global_batches(num_samples, 32, 0, 0)) > 0.4
    assert padded(global_batches(num_samples, 32, 0, 0, lengths)) < most


def test_each_quarter_of_a_small_set_is_grouped_by_itself() -> None:
    drawn, grouped = global_batches(1003, 32, 0, 0), global_batches(1003, 32, 0, 0, LENGTHS)
    for start in (0, 7, 14, 21):
        assert set(np.concatenate(grouped[start : start + 7])) == set(np.concatenate(drawn[start : start + 7]))


def test_a_jump_to_any_step_gives_what_counting_up_to_it_gives() -> None:
    whole = seen_by_step(2, 16)
    for first_step in (1, 31, 32, 33, 69):
        assert seen_by_step(2, 16, first_step=first_step) == whole[first_step:]


def test_two_one_and_three_processes_after_each_other_see_what_one_would() -> None:
    attempts = [seen_by_step(2, 16, 0, 13, 96), seen_by_step(1, 8, 13, 20, 96), seen_by_step(3, 4, 20, 70, 96)]
    assert [step for attempt in attempts for step in attempt] == seen_by_step(1, 96, batch=96)


def test_ranks_always_have_equally_many_micro_batches_and_padding_repeats_a_sample() -> None:
    arithmetic = BatchArithmetic(64, 4, 4, 4)
    for size in range(1, 65):
        ranks = split_over_ranks(np.arange(size), 3, arithmetic)
        assert len({len(rank) for rank in ranks}) == 1
        keys = [key for rank in ranks for micro in rank if not micro.is_padding for key in micro.keys]
        assert sorted(keys) == [(3, index) for index in range(size)]
        assert all(1 <= len(micro.keys) <= 4 for rank in ranks for micro in rank)


def test_evaluation_gives_each_sample_to_one_rank() -> None:
    for world_size in (1, 2, 3):
        seen = [index for rank in range(world_size) for batch in evaluation_batches(101, 8, rank, world_size, LENGTHS[:101]) for index in batch]
        assert sorted(seen) == list(range(101))


def test_samples_consumed_counts_the_smaller_last_batch_of_each_epoch() -> None:
    assert [samples_consumed(step, 1003, 32) for step in (0, 1, 31, 32, 33, 64)] == [0, 32, 992, 1003, 1035, 2006]
