"""How many pictures a split has: from headers, file sizes, or a listing that was made anyway."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from launch.config.annotation_files import QUICKLY_READ, read_annotation_file
from launch.config.data import Data
from launch.config.errors import ConfigError
from launch.config.picture_files import CIFAR_PIXELS, ENDINGS, CifarLayout, find_cifar, find_idx, idx_names
from launch.config.prepared import Listing
from launch.config.tasks import Pictures


def picture_format(data: Data, source: Path, listing: Listing) -> str:
    """Returns data.format, or what a local source looks like: the trainer comes to the same (trainers/images/readers.py)."""
    if data.format != "auto":
        return data.format
    if source.is_file():
        return "parquet"
    if find_idx(source):
        return "idx"
    if find_cifar(source):
        return "cifar"
    return "parquet" if any(name.endswith(".parquet") for name, _, _ in listing) else "image_folder"


def count_pictures(options: Pictures, data: Data, source: Path, listing: Listing) -> int | None:
    """Returns the pictures of the train split as the source has them; None where only reading them tells.

    Raises:
        OSError, EOFError, zlib.error: a file that cannot be read.
    """
    kind, split = picture_format(data, source, listing), data.splits.train
    if kind == "idx":
        return _count_idx(source, split)
    if kind == "cifar":
        found = find_cifar(source)
        return _count_cifar(*found, split) if found else None
    return _count_folder(listing, split, options.label_names) if kind == "image_folder" else None


def _count_idx(folder: Path, split: str) -> int | None:
    """Four bytes of magic, then the number of pictures."""
    path = next((folder / name for name in idx_names(split, "images", 3) if (folder / name).is_file()), None)
    if path is None:
        return None
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else path.open("rb") as file:
        header = file.read(8)
    return int.from_bytes(header[4:8], "big") if len(header) == 8 else None


def _count_cifar(folder: Path, layout: CifarLayout, split: str) -> int | None:
    files = [folder / name for name in layout.files.get(split, ())]
    if not files or not all(file.is_file() for file in files):
        return None
    if layout.num_labels is None:  # of pickles only the published ones are read
        return layout.num_pictures[split]
    return sum(file.stat().st_size // (layout.num_labels + CIFAR_PIXELS) for file in files)


def _count_folder(listing: Listing, split: str, label_names: Sequence[str] | None) -> int | None:
    """Counts SPLIT/CLASS/.../picture; hidden classes and hidden files are none. None where there are no pictures: it may be of another format."""
    parts = PurePosixPath(split).parts
    if ".." in parts or PurePosixPath(split).is_absolute():
        return None
    prefix, count = "".join(f"{part}/" for part in parts), 0
    for name, _, _ in listing:
        label, slash, rest = name.removeprefix(prefix).partition("/")
        if not name.startswith(prefix) or not slash or label.startswith(".") or (label_names and label not in label_names):
            continue
        file = rest.rpartition("/")[2]
        count += not file.startswith(".") and os.path.splitext(file)[1].lower() in ENDINGS
    return count or None


def count_annotated(file: Path, key: str) -> int | None:
    """Returns the pictures that an annotation file lists; None for one that takes seconds to read, or cannot be read."""
    try:
        return len(read_annotation_file(file, key)["images"]) if file.stat().st_size <= QUICKLY_READ else None
    except (ConfigError, OSError):
        return None  # said by find_unfit_sources, and by the ranks


UNREADABLE = (OSError, EOFError, zlib.error)
"""What counting raises for damaged files."""
