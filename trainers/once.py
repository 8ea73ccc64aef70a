"""Folders that are made once: by one process, under a file lock, visible only when whole."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from launch.config.errors import ConfigError, Problem

if TYPE_CHECKING:
    import filelock

QUIET_WAIT_S = 10.0
"""Ranks of one run wait for each other's preparation all the time; only a longer wait is worth a line."""

_FIX = "FULLRANK_CACHE=DIR with room and write permission"


def make_once(folder: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None], fix: str = _FIX) -> Path:
    """Returns `folder`, made by exactly one of the processes that ask for it at the same time; the others wait.

    `make` fills a temporary folder beside it, which is renamed when it returns, so a killed process leaves nothing that looks whole.
    The kernel frees the lock of a process that dies (flock).

    Args:
        fix: what to type where the place cannot be written.

    Raises:
        ConfigError: the place cannot be written.
    """
    if is_whole(folder):
        return folder
    import filelock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _acquired(filelock.FileLock(f"{folder}.lock"), folder):
            if not is_whole(folder):
                _make(folder, make)
    except OSError as error:
        if error.errno is None:  # not the system's: a library's own
            raise
        what = f"cannot be written: {error.strerror or error}"
        raise ConfigError(Problem(what, where=str(error.filename or folder), fix=fix)) from error
    return folder


def _acquired(lock: filelock.BaseFileLock, folder: Path) -> filelock.AcquireReturnProxy:
    """Returns the lock, held; says so if that takes waiting."""
    import filelock

    try:
        return lock.acquire(timeout=QUIET_WAIT_S)
    except filelock.Timeout:
        print(f"waiting for another process that makes {folder}", file=sys.stderr)
        return lock.acquire()


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        make(temporary)
        let_read(temporary)
        shutil.rmtree(folder, ignore_errors=True)  # a folder that is not whole, from an older format
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def let_read(folder: Path) -> None:
    """Makes every file below a folder as readable as the folder: safetensors writes for the owner alone (0600), whatever the umask says."""
    allowed = folder.stat().st_mode & 0o666
    for path in (path for path in folder.rglob("*") if path.is_file()):
        path.chmod(path.stat().st_mode & 0o111 | allowed)
