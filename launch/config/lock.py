"""One process trains in a run: a lock with host, pid and heartbeat."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from launch.config.errors import Problem, StateError
from launch.config.run_dir import RunDir, read_json

HEARTBEAT_S = 10.0
"""How often whoever holds a lock shows that it lives."""

STALE_S = 120.0
"""A lock of another host is taken over after this long without a heartbeat."""

_ALIVE = ("pending", "running", "stopping")


@dataclass
class RunLock:
    """Held until `release`, the end of the process, or that of a `with` block.

    The kernel's lock (flock) ends with its process. Where a file system has none, or keeps it from other hosts, the file itself tells
    who holds it, and its time of change is the heartbeat: set and compared by the file system's clock, not by that of any host.
    """

    descriptor: int
    is_held: bool = True

    def beat(self) -> None:
        """Shows that this process lives."""
        with contextlib.suppress(OSError):
            os.utime(self.descriptor)

    def beat_or_refuse(self) -> None:
        """Shows that this process lives.

        Raises:
            StateError: another job has taken the run over, because this node had been given up for lost.
        """
        self.beat()
        try:
            is_there = os.fstat(self.descriptor).st_nlink > 0
        except OSError:  # removed by another client of a network file system
            is_there = False
        if not is_there:
            raise StateError(Problem("another job has taken the run over: this node was given up for lost", where=socket.gethostname()))

    def beat_in_background(self) -> Self:
        """Beats from a thread as long as this process lives, whatever it is busy with."""
        threading.Thread(target=self._beat_forever, name="lock", daemon=True).start()
        return self

    def release(self) -> None:
        if self.is_held:
            self.is_held = False
            os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _beat_forever(self) -> None:
        while self.is_held:
            time.sleep(HEARTBEAT_S)
            self.beat()


def lock_run(run: RunDir) -> RunLock:
    """Makes this process the only one that trains in the run.

    A lock whose holder is gone is taken over; from another host, that takes STALE_S seconds of silence, and is said.

    Raises:
        StateError: another process trains there.
    """
    descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT, 0o666)  # not inherited over exec
    try:
        has_kernel_lock = _try_flock(descriptor)
        holder = read_json(run.lock) or {}
        if has_kernel_lock is False:
            raise StateError(_alive(run, holder, "trains in it"))
        _refuse_live_holder(run, holder, has_kernel_lock is True)
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "job_id": os.environ.get("SLURM_JOB_ID"), "time": time.time()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(mine).encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    lock = RunLock(descriptor)
    os.register_at_fork(after_in_child=lock.release)  # or a data worker would hold it on after this process was killed
    return lock


def silence_s(run: RunDir) -> float:
    """Returns how long ago a run last showed that it lives, by its lock or its status; by the clock of the file system, which all hosts share."""
    signs = [path.stat().st_mtime for path in (run.lock, run.status) if path.is_file()]
    return _file_system_time(run.path) - max(signs) if signs else float("inf")


def _try_flock(descriptor: int) -> bool | None:
    """Returns whether the kernel gave the lock; None: this file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        return None
    return True


def _refuse_live_holder(run: RunDir, holder: dict[str, Any], has_kernel_lock: bool) -> None:
    host, pid = holder.get("host"), holder.get("pid")
    is_here = host == socket.gethostname()
    is_same_job = holder.get("job_id") is not None and holder["job_id"] == os.environ.get("SLURM_JOB_ID")
    if host is None or (read_json(run.status) or {}).get("state") not in _ALIVE or is_same_job:  # a requeued job is its own successor
        return
    if is_here and (has_kernel_lock or not Path(f"/proc/{pid}").exists()):
        return
    silence = silence_s(run)
    if silence < STALE_S:
        raise StateError(_alive(run, holder, f"gave its last sign {max(silence, 0):.0f} s ago"))
    print(f"warning: pid {pid} on {host} gave no sign for {silence:.0f} s: its run is taken over", file=sys.stderr)


def _alive(run: RunDir, holder: dict[str, Any], how: str) -> Problem:
    status = holder or read_json(run.status) or {}
    fix = f"fullrank status {run.path}, or fullrank logs {run.path}; if that process is gone, wait {STALE_S:.0f} s"
    return Problem(f"the run is alive: pid {status.get('pid')} on {status.get('host')} {how}", where=str(run.path), fix=fix)


def _file_system_time(folder: Path) -> float:
    """Returns the time as the file system's clock has it; this host's where the folder cannot be written."""
    probe = folder / f".clock.{os.getpid()}.tmp"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()
    return now
