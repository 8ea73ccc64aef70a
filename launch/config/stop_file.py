"""The stop file of an attempt: while it is there, every rank finishes its step, saves and leaves. One reader for both sides."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import get_args

from launch.config.run_dir import Cause


def read_stop_file(path: Path) -> Cause | None:
    """Returns the cause that a stop file names; None: it is not there. Its being there is the request: what names no cause is a person's."""
    try:
        said = path.read_bytes().strip()
    except IsADirectoryError:
        return "user"
    except OSError:
        return None
    return next((cause for cause in get_args(Cause) if cause.encode() == said), "user")


def remove_stop_file(path: Path) -> None:
    """Removes the stop file of an attempt that has ended; what cannot be removed stays, for each attempt has a file of its own."""
    with contextlib.suppress(OSError):
        path.rmdir() if path.is_dir() else path.unlink()
