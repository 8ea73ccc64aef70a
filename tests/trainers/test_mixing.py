from __future__ import annotations

import numpy as np
import pytest

from trainers.mixing import mixed_batches, sampling_shares, separate_batches, steps_of_tasks

SIZES = [100, 25, 7]


def task_of(index: int) -> int:
    return 0 if index < 100 else 1 if index < 125 else 2


@pytest.mark.parametrize(
    ("temperature", "shares"), [(1.0, [100 / 132, 25 / 132, 7 / 132]), (2.0, [10 / (15 + 7**0.5), 5 / (15 + 7**0.5), 7**0.5 / (15 + 7**0.5)])]
)
def test_shares_are_by_size_and_flatter_the_higher_the_temperature(temperature: float, shares: list[float]) -> None:
    assert sampling_shares(SIZES, temperature) == pytest.approx(shares)
    assert sampling_shares(SIZES, 1e9) == pytest.approx([1 / 3] * 3)


def test_every_task_has_a_step_and_the_steps_add_up() -> None:
    assert steps_of_tasks(SIZES, 1.0, 17) == [11, 4, 2]
    assert steps_of_tasks(SIZES, 1e9, 17) == [6, 6, 5]
    assert steps_of_tasks([1000, 1], 1.0, 2) == [1, 1]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_every_batch_is_of_one_task_and_only_the_last_is_smaller(temperature: float) -> None:
    batches = mixed_batches(SIZES, temperature, 8, seed=3, epoch=0)
    assert [len(batch) for batch in batches] == [8] * 16 + [4]
    tasks = [{task_of(index) for index in batch.tolist()} for batch in batches]
    assert all(len(found) == 1 for found in tasks)
    counts = [sum(found == {task} for found in tasks) for task in range(3)]
    assert counts == steps_of_tasks(SIZES, temperature, 17)


def test_a_task_is_gone_through_pass_by_pass_over_the_epochs() -> None:
    of_first: list[int] = []
    for epoch in range(25):  # 11 steps an epoch: a pass of 100 samples ends in the middle of a batch
        of_first += [index for batch in mixed_batches(SIZES, 1.0, 8, seed=3, epoch=epoch) if task_of(int(batch[0])) == 0 for index in batch.tolist()]
    counts = np.bincount(of_first, minlength=100)
    assert counts.max() - counts.min() <= 3  # the last batch of an epoch leaves out at most four samples of its task
    assert len(of_first) == pytest.approx(25 * 11 * 8, abs=25 * 4)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first = [batch.tolist() for batch in mixed_batches(SIZES, 2.0, 8, seed=3, epoch=1)]
    assert first == [batch.tolist() for batch in mixed_batches(SIZES, 2.0, 8, seed=3, epoch=1)]
    assert first != [batch.tolist() for batch in mixed_batches(SIZES, 2.0, 8, seed=3, epoch=2)]
    assert first != [batch.tolist() for batch in mixed_batches(SIZES, 2.0, 8, seed=4, epoch=1)]


def test_lengths_group_neighbours_and_put_the_longest_first() -> None:
    sizes = [20 * size for size in SIZES]
    lengths = [np.random.default_rng(0).integers(1, 60, size) for size in sizes]
    everything = np.concatenate(lengths)

    def padded(batches: list[np.ndarray]) -> int:  # type: ignore[type-arg]
        return sum(int(everything[batch].max()) * len(batch) - int(everything[batch].sum()) for batch in batches)

    grouped = mixed_batches(sizes, 1.0, 8, 0, 0, lengths)
    assert all((np.diff(everything[batch]) <= 0).all() for batch in grouped)
    assert padded(grouped) < 0.4 * padded(mixed_batches(sizes, 1.0, 8, 0, 0))


def test_an_evaluation_sees_every_sample_once_in_batches_of_one_task() -> None:
    batches = separate_batches(SIZES, 8, [np.arange(size) for size in SIZES])
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(132))
    assert [len(batch) for batch in batches] == [8] * 12 + [4] + [8, 8, 8, 1] + [7]
    assert all(len({task_of(index) for index in batch.tolist()}) == 1 for batch in batches)
