"""Ranks of trainers.train that need no seconds of imports: real processes, forked from one that has them behind it (tests/rank_server.py).

What they leave out is the interpreter's own start and end, which the tests of `fullrank run` and of `start_ranks` have.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.environment import ROOT, clean_environment

IMPORTED_EARLY = ("HF_", "OMP_", "TRANSFORMERS_", "TORCH_", "PYTHON")
"""Libraries read these variables when they are imported: a forked rank comes too late for them."""


class ForkedRank:
    """One forked rank, with what a test uses of Popen; `returncode` is None while it runs."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _ask({"pid": self.pid})
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Waits for the end; returns what the rank printed, as Popen does."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(["trainers.train"], timeout, self.log.read_text(errors="replace"))
            time.sleep(0.01)
        return self.log.read_text(errors="replace"), None


def fork_ranks(arguments: Sequence[str], num_processes: int, prepare: str | None = None, **environment: str) -> list[ForkedRank]:
    """Returns the running ranks of `trainers.train ARGUMENTS`, found by each other over loopback.

    Args:
        prepare: MODULE:FUNCTION, called in each rank with its number before anything else.
    """
    assert not [name for name in environment if name.startswith(IMPORTED_EARLY)], environment
    order = {"arguments": list(arguments), "num_processes": num_processes, "prepare": prepare, "environment": environment}
    return [ForkedRank(pid, Path(log)) for pid, log in _ask(order)]


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Starts this process's server, which ends when its stdin does."""
    environment = clean_environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", str(ROOT / "tests" / "rank_server.py")]
    server = subprocess.Popen(command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def _ask(order: dict[str, Any]) -> Any:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())
