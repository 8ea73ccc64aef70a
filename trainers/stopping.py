"""Requests to stop: signals and the stop file, heard by one rank and agreed on by all."""

from __future__ import annotations

import ctypes
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from launch.config.run_dir import Cause
from launch.config.stop_file import read_stop_file, remove_stop_file

CAUSES: tuple[Cause, ...] = ("preempted", "time_limit", "user", "cancelled")
"""Why a run may be asked to stop, weakest first: what a person asked for wins over what a machine did."""

_SIGNAL_CAUSES: dict[int, Cause] = {signal.SIGTERM: "preempted", signal.SIGUSR2: "preempted", signal.SIGINT: "user"}
STOP_FILE_INTERVAL_S = 1.0
ONE_PRESS_S = 2.0
"""A second Ctrl-C within this time is the same one, that came by two ways (from the terminal and from a launcher)."""

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class StopAgreed(Exception):
    """All ranks have agreed, at the same place, to leave; raised on every one of them."""

    def __init__(self, cause: Cause, during: str) -> None:
        super().__init__(f"{cause}, while {during}")
        self.cause, self.during = cause, during


class StopRequests:
    """What this process was asked; `flags` travels with the step's own all-reduce, so that all ranks stop at one step."""

    def __init__(self) -> None:
        self._stop_file: Path | None = None
        self._heard: set[Cause] = set()
        self._next_look = self._first_press = 0.0

    def listen(self) -> None:
        """Handles SIGTERM, SIGUSR2 and SIGINT from now on; a repeated signal counts once, a second Ctrl-C (two seconds later) interrupts."""
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

    def leave_if_asked(self, sum_over_ranks: Callable[[Sequence[float]], list[float]], during: str) -> None:
        """Agrees on whether to leave here. Every rank must call this.

        Raises:
            StopAgreed: on every rank, if any rank was asked to stop.
        """
        cause = agreed_cause(sum_over_ranks(self.flags()))
        if cause:
            raise StopAgreed(cause, during)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._first_press and now > self._first_press + ONE_PRESS_S:
                raise KeyboardInterrupt
            self._first_press = self._first_press or now
        self._heard.add(_SIGNAL_CAUSES[number])
        self._next_look = 0.0  # the stop file may name the cause of this very signal

    def _look_at_stop_file(self) -> None:
        if self._stop_file is None:
            return
        if cause := read_stop_file(self._stop_file):
            self._heard.add(cause if cause in CAUSES else "user")

    def forget_stop_file(self) -> None:
        """Removes the stop file of an attempt that ends here. Rank 0 only."""
        if self._stop_file is not None:
            remove_stop_file(self._stop_file)


class StopChecks:
    """Asks all ranks between the batches of an evaluation, about once a second whatever a batch takes.

    How many batches that is depends on the clock of rank 0 alone, so that every rank asks at the same batches.
    """

    def __init__(self, stops: StopRequests, sum_over_ranks: Callable[[Sequence[float]], list[float]], is_main: bool, during: str) -> None:
        self._stops, self._sum_over_ranks, self._is_main, self._during = stops, sum_over_ranks, is_main, during
        self._interval = self._left = 1
        self._asked = time.perf_counter()

    def before_batch(self) -> None:
        """Every rank must call this equally often.

        Raises:
            StopAgreed: on every rank, if any rank was asked to stop.
        """
        self._left -= 1
        if self._left:
            return
        now = time.perf_counter()
        seconds, *flags = self._sum_over_ranks([now - self._asked if self._is_main else 0.0, *self._stops.flags()])
        cause = agreed_cause(flags)
        if cause:
            raise StopAgreed(cause, self._during)
        self._interval = self._left = next_interval(self._interval, seconds)
        self._asked = now


def next_interval(batches: int, seconds: float) -> int:
    """Returns after how many batches to ask again, when the last `batches` took `seconds`: about a second, at most 4 times as many."""
    return max(1, min(4 * batches, int(batches / max(seconds, 1e-9))))


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
