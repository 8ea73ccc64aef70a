"""Trains an experiment whole, and again with a real stop and a resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from launch.config.errors import EXIT_DONE, EXIT_STOPPED, FullrankError, Problem
from launch.config.metrics import read_metrics
from launch.config.run_dir import RunDir, read_json

_LOOK_S = 0.01


class DoneTooSoonError(FullrankError):
    """The training was over before the signal of the stop reached it."""


class Trainings(Protocol):
    """What a verification asks of the place where it trains: this machine, or a cluster (launch.scheduler.drill)."""

    @property
    def number(self) -> signal.Signals:
        """The signal of the stop."""

    def train(self, run: RunDir) -> int:
        """Trains a new run to its end and returns the exit code."""

    def train_until(self, run: RunDir, step: int) -> int:
        """Trains a new run, sends the real signal once metrics.jsonl has the step, and returns the exit code."""

    def resume(self, run: RunDir) -> int:
        """Goes on with a stopped run to its end and returns the exit code."""


@dataclass(frozen=True)
class LocalTrainings:
    """`fullrank run` and `fullrank resume` on this machine.

    Args:
        words: what stands behind `fullrank run`: experiment, overrides, options.
        number: the signal of the stop.
    """

    words: Sequence[str]
    number: signal.Signals = signal.SIGTERM

    def train(self, run: RunDir) -> int:
        return start(run, "run", *self.words, "--run-dir", str(run.path)).wait()

    def train_until(self, run: RunDir, step: int) -> int:
        process = start(run, "run", *self.words, "--run-dir", str(run.path))
        try:
            while process.poll() is None and not has_step(run, step):
                time.sleep(_LOOK_S)
            if process.poll() is None:
                process.send_signal(self.number)
            return process.wait()
        finally:
            if process.poll() is None:  # Ctrl-C in this process: it does not reach the other's session
                process.send_signal(signal.SIGINT)
                process.wait()

    def resume(self, run: RunDir) -> int:
        return start(run, "resume", str(run.path)).wait()


def start(run: RunDir, *words: str) -> subprocess.Popen[bytes]:
    """Types `fullrank WORDS` in a session of its own; what it says goes to the run's log."""
    with log_of(run).open("ab") as log:
        return subprocess.Popen([sys.executable, "-P", "-m", "launch", *words], env=_environment(), stdout=log, stderr=log, start_new_session=True)


def stop_and_resume(trainings: Trainings, run: RunDir, step: int) -> int:
    """Stops a new run after `step`, goes on with it, and returns the step that it stopped at.

    Raises:
        DoneTooSoonError: it was over before the stop.
        FullrankError: it did not stop where and as it should have; its log is named.
    """
    code = trainings.train_until(run, step)
    if code == EXIT_DONE:
        what = f"the training was done before the stop at step {step} reached it"
        raise DoneTooSoonError(Problem(what, where=str(log_of(run)), fix="more --steps"))
    if code != EXIT_STOPPED:
        what = f"the stop ended with exit code {code}, not {EXIT_STOPPED}"
        raise FullrankError(Problem(what, where=str(log_of(run)), fix="read its log"))
    stopped_at = int((read_json(run.status) or {}).get("step") or 0)
    expect_done(trainings.resume(run), run, "the resumed training")
    return stopped_at


def expect_done(code: int, run: RunDir, what: str) -> None:
    """Raises FullrankError unless a training ended well."""
    if code:
        raise FullrankError(Problem(f"{what} ended with exit code {code}", where=str(log_of(run)), fix="read its log"))


def has_step(run: RunDir, step: int) -> bool:
    """Returns whether metrics.jsonl has reached a step."""
    return any(record["split"] == "train" and record["step"] >= step for record in read_metrics(run.metrics))


def log_of(run: RunDir) -> Path:
    """Returns where the output of a run's launches goes, beside it."""
    return run.path.with_name(f"{run.path.name}.log")


def _environment() -> dict[str, str]:
    """Returns this process's environment, in which the launcher that is running now is found again."""
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
