"""Keeps status.json and the crash report at the step that training has reached."""

from __future__ import annotations

import sys
import time

from launch.config.run_dir import RunDir, update_status
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
        if self._is_main and now >= self._next:
            self._next = now + INTERVAL_S
            try:
                update_status(self._run, step=step)
                self._has_warned = False
            except OSError as error:  # training outlives a full disk for as long as nothing needs it
                if not self._has_warned:
                    print(f"warning: {self._run.status} cannot be written: {error.strerror}; training goes on", file=sys.stderr, flush=True)
                self._has_warned = True
