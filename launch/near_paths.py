"""Names beside a path that is not there: what was probably meant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from launch.config.errors import suggest
from launch.config.sources import HubName, Source

_MOST_NAMES = 10_000
"""A folder of more is not compared with."""


def find_near_paths(missing: Mapping[str, Path], sources: Mapping[str, Source]) -> dict[str, str]:
    """Returns the nearest name that is there, by key: for paths that are missing, and for hub names that may be mistyped folders.

    Args:
        missing: key of the experiment -> path that is not there.
        sources: key of the experiment -> what it names, of what is not in the hub's cache.
    """
    wanted = {key: (path, f"{path.parent}/") for key, path in missing.items()}
    for key, source in sources.items():
        if isinstance(source, HubName):
            parent = Path(source.name).parent
            wanted[key] = (Path.cwd() / source.name, "./" if parent == Path() else f"./{parent}/")
    near = {key: (start, suggest(path.name, _names_in(path.parent))) for key, (path, start) in wanted.items()}
    return {key: f"{start}{name}" for key, (start, name) in near.items() if name is not None}


def _names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for _, entry in zip(range(_MOST_NAMES), entries, strict=False) if not entry.name.startswith(".")]
    except OSError:
        return []
