from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from launch.config.run_dir import RunDir
from trainers.debugging import is_gone, verdict
from trainers.loop import StepResult
from trainers.profiling import NoProfiler, StepProfiler, table


def result(norm: float = 1.0) -> StepResult:
    return StepResult(torch.zeros(()), 1.0, torch.tensor(norm), 1e-3, None)


@pytest.mark.parametrize(
    ("losses", "norm", "advice"),
    [
        ([0.7, float("nan")], 1.0, "ten times smaller; --debug names the operation"),
        ([0.7, 0.7, 0.7], 0.0, "no gradient arrives: look at model.freeze"),
        ([0.7, 0.1, 0.6], 1.0, "it was at 0.1 and rose again"),
        ([0.7, 0.3, 0.2], 1.0, "it still falls: train.duration='2000 steps'"),
        ([0.7, 0.69, 0.65], 1.0, "ten times larger; else look at the labels"),
    ],
)
def test_loss_that_stays_is_told_with_what_to_look_at(losses, norm, advice):
    assert not is_gone(losses)
    problem = verdict(losses, result(norm))
    assert problem.what.startswith("overfit: no. The loss of one batch went from 0.7 to ")
    assert problem.what.endswith(f"in {len(losses)} steps, not below 0.014")
    assert advice in str(problem.fix)


def test_loss_is_gone_below_a_fiftieth_of_the_first():
    assert is_gone([0.7, 0.0139])
    assert not is_gone([0.7, 0.0141])


def test_table_gives_milliseconds_a_step_and_shares():
    seconds = {"forward": 0.2, "backward": 0.3, "waiting for data": 0.1}
    assert table(seconds, 0.05, 1.0, 4) == [
        "| phase                           | ms a step |   share |",
        "|---------------------------------|----------:|--------:|",
        "| waiting for data                |     25.00 |   10.0% |",
        "| forward                         |     50.00 |   20.0% |",
        "| backward                        |     75.00 |   30.0% |",
        "| everything else                 |    100.00 |   40.0% |",
        "| a step                          |    250.00 |  100.0% |",
        "| (collectives, inside the above) |     12.50 |    5.0% |",
    ]


def test_nothing_is_measured_where_nothing_is_asked_for():
    batches = [1, 2]
    assert NoProfiler().steps(batches, 0) is batches
    started = time.perf_counter()
    for _ in range(1000):
        with NoProfiler().phase("forward"):
            pass
    assert time.perf_counter() >= started


class Watched(StepProfiler):
    """Records when measuring begins and ends."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last, self._profiler, self._num_steps = first, last, None, 0
        self._seconds, self.events = {"waiting for data": 0.0}, []

    def _start(self) -> None:
        self._profiler = object()
        self.events.append("start")

    def _stop(self) -> None:
        if self._profiler:
            self.events.append(f"stop after {self._num_steps}")
        self._profiler = None

    def _synchronize(self) -> None:
        pass


def test_exactly_the_steps_asked_for_are_measured():
    profiler = Watched(3, 4)
    seen = []
    for batch in profiler.steps("abcdef", 0):
        seen.append(batch)
        profiler.events.append(batch)
    assert profiler.events == ["a", "b", "start", "c", "d", "stop after 2", "e", "f"]


def test_an_evaluation_between_the_steps_is_no_part_of_them(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("trainers.profiling.time", clock)
    engine = SimpleNamespace(device=torch.device("cpu"), world=SimpleNamespace(rank=0))
    run, said = RunDir(tmp_path), []
    profiler = StepProfiler(run, engine, SimpleNamespace(say=said.append), 1, 2)
    for _ in profiler.steps("ab", 0):
        with profiler.phase("forward"):
            clock.now += 0.25
        with profiler.phase("evaluation and checkpoint"):
            clock.now += 5
    text = (run.profile / "steps.md").read_text()
    assert [line.split("|")[2].strip() for line in text.splitlines() if line.startswith(("| forward", "| a step"))] == ["250.00", "250.00"]
    assert text.endswith("Not counted: 10.00 s of evaluations and checkpoints between these steps.\n")
    assert text in said[0]


def test_resumed_training_counts_from_its_first_step():
    profiler = Watched(12, 12)
    for batch in profiler.steps("abc", 10):
        profiler.events.append(batch)
    assert profiler.events == ["a", "start", "b", "stop after 1", "c"]


def test_training_that_ends_amid_the_steps_shows_those_it_made():
    profiler = Watched(1, 9)
    steps = profiler.steps("abc", 0)
    next(steps), next(steps)
    steps.close()
    assert profiler.events == ["start", "stop after 1"]
