"""The daemons of the cluster: started with a log each, remembered by pid and start time, ended by exactly those."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class BootError(Exception):
    """The cluster did not come up; the message holds the logs."""


def start_daemon(folder: Path, name: str, argv: Sequence[str], **environment: str) -> int:
    """Starts a process that outlives this one and notes it in <folder>/pids; returns its pid."""
    with (folder / "log" / f"{name}.out").open("ab") as log:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | environment
        )
    with (folder / "pids").open("a") as pids:
        pids.write(f"{process.pid} {start_time(process.pid)} {name}\n")
    process.returncode = 0  # not ours to wait for: it is meant to stay when this process ends
    return process.pid


def living(folder: Path) -> dict[int, str]:
    """Returns {pid: name} of the processes noted in the folder that still run; never a later process with the same number."""
    try:
        rows = [line.split() for line in (folder / "pids").read_text().splitlines()]
    except OSError:
        return {}
    return {int(pid): name for pid, started, name in rows if start_time(int(pid)) == started}


def start_time(pid: int) -> str:
    """Returns the start of a process in clock ticks; `gone` if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "gone"
    return "gone" if fields[0] in ("Z", "X") else fields[19]


def end(pids: Sequence[int], patience_s: float = 5.0) -> None:
    """Ends processes: SIGTERM, and SIGKILL for those that stay."""
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + wait_s
        while any(_is_there(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)


def _is_there(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return start_time(pid) != "gone"


def wait_until(folder: Path, what: str, is_true: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Returns as soon as `is_true` says so.

    Raises:
        BootError: it took too long; with the last lines of every log.
    """
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise BootError(f"{what}: not within {timeout_s:.0f} s\n{last_lines(folder)}")
        time.sleep(0.1)


def last_lines(folder: Path, count: int = 15) -> str:
    """Returns the end of every log of the cluster."""
    parts = []
    for path in sorted((folder / "log").glob("*")):
        lines = path.read_text(errors="replace").splitlines()[-count:]
        if lines:
            parts.append("\n".join([f"--- {path}", *lines]))
    return "\n".join(parts)


def succeeds(argv: Sequence[str], **environment: str) -> bool:
    """Returns whether a command ends with 0; its output is dropped."""
    try:
        return subprocess.run(list(argv), capture_output=True, env=os.environ | environment, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False
