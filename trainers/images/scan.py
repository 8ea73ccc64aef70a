"""Looks at every picture once, before training: damaged ones are found here, not in the third epoch."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainers.images.pictures import Finding, inspect_picture, read_encoded
from trainers.reading.rows import BadRows, Split

PICTURES_AT_ONCE = 1024


@dataclass(frozen=True)
class Scan:
    """What the pictures are like.

    Args:
        is_usable: split -> bool a row.
        needs_pillow: split -> bool a row.
        conversions: what is done to pictures, in words -> how many of all splits.
        sizes: split -> width and height of each picture, None where that is not known.
    """

    is_usable: dict[str, Any]
    needs_pillow: dict[str, Any]
    conversions: Counter[str]
    sizes: dict[str, list[tuple[int, int] | None]]


def scan_pictures(splits: Mapping[str, Split], column: str, shortest_edge: int, channels: int, bad_rows: BadRows) -> Scan:
    """Returns what every picture is like; those that cannot be used go to `bad_rows`. Uses all cores (Pillow decodes without the GIL)."""
    scan = Scan({}, {}, Counter(), {})
    for name, split in splits.items():
        findings = list(_findings(split.columns[column], shortest_edge, channels))
        for index, finding in enumerate(findings):
            if finding.problem:
                bad_rows.add(_place(split, column, index), finding.problem)
            elif finding.conversion:
                scan.conversions[finding.conversion] += 1
        scan.is_usable[name] = np.array([finding.problem is None for finding in findings], dtype=bool)
        scan.needs_pillow[name] = np.array([finding.needs_pillow for finding in findings], dtype=bool)
        scan.sizes[name] = [finding.size for finding in findings]
    return scan


def encoded_of(value: Any) -> Any:
    """Returns a path or bytes: the hub keeps a picture as {bytes, path}, one of which may be missing."""
    if isinstance(value, Mapping):
        return value.get("bytes") or value.get("path")
    return value


def _findings(values: Sequence[Any], shortest_edge: int, channels: int) -> Iterator[Finding]:
    if len(values) and isinstance(values[0], np.ndarray):  # pixels are what they are
        conversion = (
            None if values[0].shape[2] == channels else "have one channel and become RGB" if channels == 3 else "have colours and become grey"
        )
        yield from (Finding(conversion=conversion) for _ in range(len(values)))
        return

    def look(value: Any) -> Finding:
        try:
            picture = encoded_of(value)
            if picture is not None and not isinstance(picture, (str, bytes)):
                return Finding(f"{type(picture).__name__} is no picture")
            return inspect_picture(read_encoded(picture), shortest_edge, channels)
        except OSError as error:
            return Finding(f"cannot be read: {error.strerror or error}")

    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Pillow warns of large pictures and odd metadata; what cannot be used is said by us, with its name.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(num_cores) as pool:
        for start in range(0, len(values), PICTURES_AT_ONCE):
            yield from pool.map(look, [values[index] for index in range(start, min(start + PICTURES_AT_ONCE, len(values)))])


def _place(split: Split, column: str, index: int) -> str:
    value = split.columns[column][index]
    return value if isinstance(value, str) else split.place(index)
