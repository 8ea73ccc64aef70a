"""Reads IDX files, as MNIST and Fashion-MNIST are published: NAME-images-idx3-ubyte and NAME-labels-idx1-ubyte, gzipped or not.

The format (yann.lecun.com/exdb/mnist): two zero bytes, the type of the values (8: unsigned byte), the number of dimensions, each
dimension as a big-endian int32, then the values.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from launch.config.errors import ConfigError, Problem
from launch.config.picture_files import find_idx, idx_names
from launch.config.tasks import Pictures
from trainers.reading.rows import Split

_UNSIGNED_BYTE = 8


def read_idx(folder: Path, wanted: Mapping[str, str], options: Pictures) -> dict[str, Split]:
    """Returns the splits; pictures are uint8 [H, W, 1] each.

    Raises:
        ConfigError: a file that is missing, cut off, or of another kind; pictures and labels that are not equally many.
    """
    splits = {}
    for split, name in wanted.items():
        images = read_idx_file(_find_file(folder, split, name, "images", 3), 3)
        labels = read_idx_file(path := _find_file(folder, split, name, "labels", 1), 1)
        if len(images) != len(labels):
            raise ConfigError(Problem(f"{len(labels)} labels for {len(images)} pictures", str(path), f"data.splits.{split}"))
        columns = {options.image: images[:, :, :, None], options.label: labels.tolist()}
        splits[split] = Split(columns, f"{folder}, split {name}", range(len(images)), is_text_file=False)
    return splits


def read_idx_file(path: Path, num_dimensions: int) -> Any:
    """Returns the values of an IDX file, uint8 with `num_dimensions` dimensions.

    Raises:
        ConfigError: it is damaged, or no IDX file of such values.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(Problem(f"is not a whole gzip file: {error}", str(path), "data.source", fix="fetch it again")) from error
    header = 4 + 4 * num_dimensions
    if len(content) < header or content[:4] != bytes((0, 0, _UNSIGNED_BYTE, num_dimensions)):
        what = f"is no IDX file of bytes in {num_dimensions} dimension{'s' if num_dimensions > 1 else ''} (it begins with {content[:4].hex(' ')})"
        raise ConfigError(Problem(what, str(path), "data.source"))
    shape = tuple(int.from_bytes(content[4 + 4 * n : 8 + 4 * n], "big") for n in range(num_dimensions))
    expected = int(np.prod(shape, dtype=np.int64))
    if len(content) - header != expected:
        what = f"holds {len(content) - header} values, and its header says {' x '.join(map(str, shape))} = {expected}"
        raise ConfigError(Problem(what, str(path), "data.source", fix="fetch it again"))
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _find_file(folder: Path, split: str, name: str, what: str, num_dimensions: int) -> Path:
    forms = idx_names(name, what, num_dimensions)
    found = next((folder / form for form in forms if (folder / form).is_file()), None)
    if found is None:
        names = ", ".join(find_idx(folder)) or "none"
        fix = f"data.splits.{split}=t10k" if name in ("test", "validation") and "t10k" in names else None
        raise ConfigError(
            Problem(f"there is no {folder / forms[0]}, gzipped or not", key=f"data.splits.{split}", allowed=f"its splits: {names}", fix=fix)
        )
    return found
