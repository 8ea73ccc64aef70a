"""Keeps the records of a training: metrics.jsonl always, W&B and TensorBoard from it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from launch.config.errors import EXIT_DONE, EXIT_FAILED, FullrankError
from launch.config.experiment import Experiment
from launch.config.run_dir import RunDir
from trainers.tracking.metrics_file import MetricsFile
from trainers.tracking.tensorboard_files import TensorBoard
from trainers.tracking.wandb_process import WandbProcess
from trainers.tracking.wandb_reach import is_wanted

Record = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class Tracker(Protocol):
    """Takes records that metrics.jsonl has accepted."""

    def log(self, record: Record) -> None: ...

    def close(self, exit_code: int) -> None: ...


class Trackers:
    """All the places that a record goes to; what goes wrong in one warns once and never stops training.

    As a context manager it closes with exit code 1 if an exception passes through, else with `exit_code` (0 unless it was set).

    Args:
        marks: what every record carries: the attempt.
    """

    def __init__(self, metrics: MetricsFile | None, others: Mapping[str, Tracker], marks: Record | None = None) -> None:
        self.metrics = metrics
        self.exit_code = EXIT_DONE
        self._others = dict(others)
        self._marks = dict(marks or {})
        self._closed = False

    def log(self, record: Record) -> None:
        """Writes a record with `step` and `split`; one that metrics.jsonl already has is dropped everywhere."""
        stamped = {"time": time.time(), **self._marks, **record}
        if self.metrics is None or not _guarded("metrics.jsonl", self.metrics.append, stamped):
            return
        for name, tracker in self._others.items():
            _guarded(name, tracker.log, stamped)

    def close(self, exit_code: int | None = None) -> None:
        """Ends every tracker; returns within trainers.tracking.wandb_process.FINISH_S seconds. A second call does nothing."""
        if self._closed or self.metrics is None:
            return
        self._closed = True
        _guarded("metrics.jsonl", self.metrics.close)
        for name, tracker in self._others.items():
            _guarded(name, tracker.close, self.exit_code if exit_code is None else exit_code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failed = kind is not None and not issubclass(kind, SystemExit)
        self.close(EXIT_FAILED if failed else None)


SILENT = Trackers(None, {})
"""What every rank but the first has: takes records and keeps none."""


def open_trackers(run: RunDir, experiment: Experiment, facts: Mapping[str, Any]) -> Trackers:
    """Returns the open trackers of a run. Rank 0 only; starts W&B's process and does not wait for it.

    Args:
        facts: about this attempt (world size, attempt, git commit, ...), recorded beside the experiment.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
    """
    others: dict[str, Tracker] = {}
    board = TensorBoard(run.tensorboard) if experiment.tracking.tensorboard else None
    metrics = MetricsFile(run.metrics)
    if board:
        _guarded("TensorBoard", board.catch_up, metrics.records)
        others["TensorBoard"] = board
    if is_wanted(experiment.tracking.wandb.mode, os.environ):
        process = _guarded("W&B", WandbProcess, run, experiment, facts)
        if process:
            others["W&B"] = process
    return Trackers(metrics, others, {key: facts[key] for key in ("attempt",) if key in facts})


_warned: set[str] = set()


def _guarded(name: str, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Returns what the action returns, or None after saying (once a tracker) what went wrong."""
    try:
        return action(*args, **kwargs)
    except FullrankError:
        raise
    except Exception as error:
        if name not in _warned:
            _warned.add(name)
            print(f"warning: {name}: {type(error).__name__}: {error}; training goes on", file=sys.stderr)
        return None
