"""Where the time of some optimizer steps went: a table of phases, and a torch profiler trace."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch

from launch.config.run_dir import RunDir, write_atomic
from trainers.console import Console
from trainers.engine import Engine

T = TypeVar("T")
_NOTHING = nullcontext()
PHASES = ("waiting for data", "counting and stop requests", "forward", "backward", "optimizer", "logging")
"""What a step consists of, in its order; the loop marks them by these names."""

BESIDE_A_STEP = "evaluation and checkpoint"
"""What the loop marks between two steps: it is no part of their time."""

_COLLECTIVES = ("gloo:", "nccl:")
"""How the trace's events of collectives begin."""


class NoProfiler:
    """Stands where nothing is measured."""

    def steps(self, batches: Iterable[T], step: int) -> Iterable[T]:
        return batches

    def phase(self, name: str) -> AbstractContextManager[None]:
        return _NOTHING


class StepProfiler(NoProfiler):
    """Measures the steps `first` to `last` (counted from 1) of this rank; every rank writes its trace, rank 0 the table.

    While it measures, the host waits for the GPU at the end of each phase: otherwise a phase would only show the time to queue its work.
    """

    def __init__(self, run: RunDir, engine: Engine, console: Console, first: int, last: int) -> None:
        self._run, self._engine, self._console = run, engine, console
        self._first, self._last = first, last
        self._profiler: Any = None
        self._seconds: dict[str, float] = defaultdict(float)
        self._started, self._num_steps = 0.0, 0

    def steps(self, batches: Iterable[T], step: int) -> Iterator[T]:
        """Yields the batches of the steps after `step`, measuring those that are to be."""
        iterator = iter(batches)
        try:
            while True:
                step += 1
                if step == self._first:
                    self._start()
                with self.phase("waiting for data"):
                    batch = next(iterator, None)
                if batch is None:
                    return
                yield batch
                self._num_steps += self._profiler is not None
                if step == self._last:
                    self._stop()
        finally:
            self._stop()  # a training that stops amid the steps shows those it made

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time of a part of the step."""
        if self._profiler is None:
            yield
            return
        started = time.perf_counter()
        with torch.profiler.record_function(f"fullrank: {name}"):
            yield
            self._synchronize()
        self._seconds[name] += time.perf_counter() - started

    def _start(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._engine.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.__enter__()
        self._synchronize()
        self._started = time.perf_counter()

    def _stop(self) -> None:
        if self._profiler is None:
            return
        beside = self._seconds.pop(BESIDE_A_STEP, 0.0)
        seconds = time.perf_counter() - self._started - beside
        profiler, self._profiler = self._profiler, None
        profiler.__exit__(None, None, None)
        if not self._num_steps:
            return
        rank, last = self._engine.world.rank, self._first + self._num_steps - 1
        self._run.profile.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(self._run.profile / f"trace_rank_{rank:05d}.json"))
        if rank:
            return
        collectives = sum(event.cpu_time_total for event in profiler.key_averages() if event.key.startswith(_COLLECTIVES)) / 1e6
        lines = table(self._seconds, collectives, seconds, self._num_steps)
        if beside:
            lines += ["", f"Not counted: {beside:.2f} s of evaluations and checkpoints between these steps."]
        text = "\n".join([f"# Where the time of steps {self._first} to {last} went (rank 0)", "", *lines, ""])
        write_atomic(self._run.profile / "steps.md", text)
        self._console.say(f"{text}\ntrace: {self._run.profile} (open it in a browser: ui.perfetto.dev)")

    def _synchronize(self) -> None:
        if self._engine.device.type == "cuda":
            torch.cuda.synchronize(self._engine.device)


def table(seconds: dict[str, float], collectives: float, total: float, num_steps: int) -> list[str]:
    """Returns the phases as rows of a Markdown table: milliseconds a step, and their share of all."""
    rows = [(name, seconds[name]) for name in PHASES if name in seconds]
    rows.append(("everything else", max(0.0, total - sum(seconds.values()))))
    rows.append(("a step", total))
    if collectives:
        rows.append(("(collectives, inside the above)", collectives))
    width = max(len(name) for name, _ in rows)
    lines = [f"| {'phase':<{width}} | ms a step |   share |", f"|{'-' * (width + 2)}|----------:|--------:|"]
    return lines + [f"| {name:<{width}} | {1e3 * value / num_steps:9.2f} | {value / total:7.1%} |" for name, value in rows]
