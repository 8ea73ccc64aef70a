"""What folders of recordings look like on the disk, for the launcher that looks before and the trainer that reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from launch.config.data import Data
from launch.config.errors import Problem

ENDINGS = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"})
"""File endings of recordings that libsndfile reads."""


def is_audio_folder(place: Path, data: Data) -> bool:
    """Returns whether the splits are patterns of paths below the source, and no tables."""
    if data.format != "auto":
        return data.format == "audio_folder"
    return place.is_dir() and not (place / data.splits.train).is_file() and not any(place.rglob("*.parquet"))


def recordings_of_splits(root: Path, data: Data) -> tuple[dict[str, list[Path]], list[Problem]]:
    """Returns the recordings that each split's pattern matches, sorted; and what is wrong: no match, or one of another split.

    Raises:
        OSError: a folder cannot be read.
    """
    splits: dict[str, list[Path]] = {}
    owners: dict[Path, str] = {}
    problems: list[Problem] = []
    for split, pattern in data.splits.model_dump().items():
        if pattern is None:
            continue
        key = f"data.splits.{split}"
        try:
            paths = sorted(path for path in _matching(root, pattern) if path.suffix.lower() in ENDINGS)
        except (ValueError, NotImplementedError) as error:
            problems.append(Problem(f"{pattern!r} is no pattern of paths below the source: {error}", key=key))
            continue
        if not paths:
            allowed = "a folder of the source, or a pattern of paths in it, e.g. 'train/*.wav' or '*_jackson_*.wav'"
            problems.append(Problem(f"no recording of {root} matches {pattern!r}", key=key, allowed=allowed))
        shared = [path for path in paths if path in owners]
        if shared:
            what = f"{len(shared)} recordings are in the {owners[shared[0]]} split too, e.g. {os.path.relpath(shared[0], root)}"
            problems.append(Problem(what, key=key, allowed="patterns that do not overlap"))
        owners.update(dict.fromkeys(paths, split))
        splits[split] = paths
    return splits, problems


def _matching(root: Path, pattern: str) -> Iterator[Path]:
    return (root / pattern).rglob("*") if (root / pattern).is_dir() else root.glob(pattern)
