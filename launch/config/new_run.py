"""Makes run directories and attempts; says of a place that cannot be written what it is."""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launch.config.errors import ConfigError, FullrankError, PreflightError, Problem
from launch.config.run_dir import Attempt, RunDir

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def new_run_id() -> str:
    """Returns an id that sorts by time and is unique among people who start at the same second."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def create_run_dir(root: Path, experiment_name: str, path: Path | None = None) -> RunDir:
    """Makes a new run directory: `path`, or a new id under the run root.

    Raises:
        ConfigError: it exists and is not empty, or cannot be made; nothing is overwritten.
        PreflightError: the disk is full.
    """
    target = (path or root / experiment_name / new_run_id()).expanduser().absolute()
    try:
        if target.is_dir() and any(target.iterdir()):
            fix = f"another --run-dir; or go on with it: fullrank resume {target}"
            raise ConfigError(Problem("the run directory exists and is not empty", where=str(target), fix=fix))
        target.mkdir(parents=True, exist_ok=True)
        run = RunDir(target)
        run.attempts.mkdir()
    except OSError as error:
        what = f"the run directory cannot be made: {error.strerror}"
        raise _unwritable(error)(Problem(what, where=str(target), fix="--run-root or --run-dir in a place you can write to")) from error
    return run


def create_attempt(run: RunDir) -> Attempt:
    """Makes the next numbered attempt; safe against another process doing the same."""
    last = run.last_attempt()
    number = last.number + 1 if last else 1
    while True:
        attempt = run.attempt(number)
        try:
            attempt.path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        attempt.failures.mkdir()
        return attempt


@contextmanager
def writing(run: RunDir) -> Iterator[None]:
    """Says of a disk that is full or read-only what it is.

    Raises:
        ConfigError: the run directory cannot be written.
        PreflightError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*_NO_ROOM, errno.EACCES, errno.EROFS):
            raise
        what = f"the run directory cannot be written: {error.strerror}"
        raise _unwritable(error)(Problem(what, where=str(run.path), fix="free space there, or --run-root or --run-dir in another place")) from error


def _unwritable(error: OSError) -> type[FullrankError]:
    """A full disk is what the machine lacks, another place what the person may mend."""
    return PreflightError if error.errno in _NO_ROOM else ConfigError
