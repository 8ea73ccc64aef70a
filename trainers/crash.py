"""Leaves a report of what ended a rank, for the agent to find, and chooses the exit code."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from bdb import BdbQuit

from launch.config.errors import EXIT_FAILED, EXIT_INTERRUPTED, FullrankError, Problem
from launch.config.run_dir import Attempt, write_json


class CrashReport:
    """Where this rank is; filled in as it goes, written when it ends badly."""

    def __init__(self, rank: int, attempt: Attempt | None) -> None:
        self.rank, self.attempt = rank, attempt
        self.phase = "start"
        self.step: int | None = None

    def write(self, error: BaseException) -> int:
        """Writes <attempt>/failures/rank_NNNNN.json, prints the error, and returns the exit code."""
        if isinstance(error, BdbQuit):
            error = FullrankError(Problem("the training was ended from the debugger"))
        text = "".join(traceback.format_exception(error))
        if isinstance(error, FullrankError):
            print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr, flush=True)
        elif not isinstance(error, KeyboardInterrupt):
            print(text, file=sys.stderr, flush=True)
        if self.attempt is not None and not isinstance(error, KeyboardInterrupt):
            try:
                self.attempt.failures.mkdir(parents=True, exist_ok=True)
                write_json(self.attempt.rank_failure(self.rank), self._facts(error, text))
            except OSError as refused:  # a full disk: what was printed above must do
                print(f"warning: the crash report cannot be written: {refused}", file=sys.stderr, flush=True)
        if isinstance(error, KeyboardInterrupt):
            return EXIT_INTERRUPTED
        return error.exit_code if isinstance(error, FullrankError) else EXIT_FAILED

    def _facts(self, error: BaseException, text: str) -> dict[str, object]:
        is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        kind = "configuration" if isinstance(error, FullrankError) and error.exit_code == 2 else "out_of_memory" if is_memory else "exception"
        return {
            "rank": self.rank,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": time.time(),
            "step": self.step,
            "phase": self.phase,
            "kind": kind,
            "exception": type(error).__name__,
            "message": str(error),
            "traceback": text,
        }
