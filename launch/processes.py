"""The processes that came from this one, whatever session they are in."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>
_OUTLIVES = b"FULLRANK_OUTLIVES=1"
"""In the environment of a process that finishes by itself after its rank has ended (and of those it starts)."""


def adopt_orphans(on: bool) -> None:
    """Descendants whose parent has died become this process's children, instead of init's."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def descendants(root: int, besides: Collection[int] = ()) -> set[int]:
    """Returns the living processes below `root`, without those in `besides` and below them."""
    children: dict[int, list[int]] = defaultdict(list)
    alive = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # gone meanwhile
        children[int(parent)].append(int(entry.name))
        if state not in ("Z", "X"):
            alive.add(int(entry.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        new = [child for child in children[waiting.pop()] if child not in besides]
        found.update(new)
        waiting += new
    return found & alive


def end_descendants(root: int, number: int, besides: Collection[int] = (), spare_outliving: bool = True) -> int:
    """Signals every process below `root`, those that start meanwhile too; spared are those that finish by themselves. Returns how many."""
    signalled: set[int] = set()
    num_ended = 0
    while new := descendants(root, besides) - signalled:
        signalled |= new
        for pid in new:
            if not (spare_outliving and _outlives(pid)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
                    num_ended += 1
    return num_ended


def _outlives(pid: int) -> bool:
    try:
        return _OUTLIVES in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def process_start(pid: int) -> str | None:
    """Returns what tells a process from a later one with the same id (its start time in clock ticks); None: not running."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
