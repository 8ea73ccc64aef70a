"""Requests to stop: signals and the stop file, heard by one rank and agreed on by all."""

from __future__ import annotations

import ctypes
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from launch.config.run_dir import Cause

CAUSES: tuple[Cause, ...] = ("preempted", "time_limit", "user", "cancelled")
"""Why a run may be asked to stop, weakest first: what a person asked for wins over what a machine did."""

_SIGNAL_CAUSES: dict[int, Cause] = {signal.SIGTERM: "preempted", signal.SIGUSR2: "preempted", signal.SIGINT: "user"}
STOP_FILE_INTERVAL_S = 1.0
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class StopRequests:
    """What this process was asked; `flags` travels with the step's own all-reduce, so that all ranks stop at one step."""

    def __init__(self) -> None:
        self._stop_file: Path | None = None
        self._heard: set[Cause] = set()
        self._next_look = 0.0

    def listen(self) -> None:
        """Handles SIGTERM, SIGUSR2 and SIGINT from now on; a repeated signal counts once, a second Ctrl-C interrupts at once."""
        for number in _SIGNAL_CAUSES:
            signal.signal(number, self._hear)

    def watch(self, stop_file: Path) -> None:
        """Takes the appearance of this file as a request too."""
        self._stop_file = stop_file

    def flags(self) -> list[float]:
        """Returns one number a cause, 1.0 if it was asked for here; looks at the stop file about once a second."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + STOP_FILE_INTERVAL_S
            self._look_at_stop_file()
        return [float(cause in self._heard) for cause in CAUSES]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        cause = _SIGNAL_CAUSES[number]
        if number == signal.SIGINT and cause in self._heard:
            raise KeyboardInterrupt
        self._heard.add(cause)

    def _look_at_stop_file(self) -> None:
        if self._stop_file is None:
            return
        try:
            text = self._stop_file.read_text(encoding="utf-8").strip()
        except OSError:
            return
        self._heard.add(next((cause for cause in CAUSES if cause == text), "user"))


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends, however that ends: stock launchers leave their ranks behind when killed."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def agreed_cause(sums: Sequence[float]) -> Cause | None:
    """Returns the strongest cause that any rank was asked for, from the sum of all ranks' flags."""
    return next((cause for cause, total in reversed(list(zip(CAUSES, sums, strict=True))) if total), None)


def ignore_stop_signals(worker_id: int = 0) -> None:
    """Leaves signals to the rank: a data worker must not die of one. Meant as a DataLoader's worker_init_fn."""
    for number in _SIGNAL_CAUSES:
        signal.signal(number, signal.SIG_IGN)
