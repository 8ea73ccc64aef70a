"""Keeps status.json and the crash report at the step that training has reached."""

from __future__ import annotations

import sys
import time
from typing import Any

from launch.config.run_dir import Cause, RunDir, update_status
from trainers.crash import CrashReport

INTERVAL_S = 2.0


class Heartbeat:
    """Written by rank 0, at most every two seconds; the crash report knows every step on every rank."""

    def __init__(self, run: RunDir, crash: CrashReport, is_main: bool) -> None:
        self._run, self._crash, self._is_main, self._next = run, crash, is_main, 0.0
        self._has_warned = False

    def beat(self, step: int, phase: str = "training") -> None:
        """Notes that `step` optimizer steps are done."""
        self._crash.step, self._crash.phase = step, phase
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL_S
            self.note(step=step)

    def announce_stop(self, cause: Cause) -> None:
        """Notes that all ranks have agreed to stop, and are saving."""
        self._crash.phase = "saving before a stop"
        self.note(state="stopping", cause=cause)

    def note(self, **changes: Any) -> None:
        """Sets keys of status.json, from rank 0; training outlives a full disk for as long as nothing needs it."""
        if not self._is_main:
            return
        try:
            update_status(self._run, **changes)
            self._has_warned = False
        except OSError as error:
            if not self._has_warned:
                print(f"warning: {self._run.status} cannot be written: {error.strerror}; training goes on", file=sys.stderr, flush=True)
            self._has_warned = True
