"""What folders of pictures look like on the disk, for the launcher that counts them and the trainer that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launch.config.tasks import Pictures

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})
"""File endings of pictures, as torchvision's ImageFolder takes them."""

CIFAR_PIXELS = 3 * 32 * 32

WITHOUT_COLUMNS = ("image_folder", "idx", "cifar")
"""Formats whose pictures and labels have no names to choose by."""


@dataclass(frozen=True)
class CifarLayout:
    """One published form of CIFAR (www.cs.toronto.edu/~kriz/cifar.html).

    Args:
        folder: the name its archive unpacks to.
        files: split -> its files.
        names: file of the class names.
        num_labels: bytes of labels before each picture; the last is the class. None: pickled.
        num_pictures: split -> its pictures, as published.
    """

    folder: str
    files: Mapping[str, tuple[str, ...]]
    names: str
    num_labels: int | None
    num_pictures: Mapping[str, int]


_NUM_PICTURES = {"train": 50_000, "test": 10_000}

CIFAR_LAYOUTS = (
    CifarLayout(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)},
        "batches.meta.txt",
        1,
        _NUM_PICTURES,
    ),
    CifarLayout("cifar-100-binary", {"train": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt", 2, _NUM_PICTURES),
    CifarLayout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
        None,
        _NUM_PICTURES,
    ),
    CifarLayout("cifar-100-python", {"train": ("train",), "test": ("test",)}, "meta", None, _NUM_PICTURES),
)


def find_cifar(root: Path) -> tuple[Path, CifarLayout] | None:
    """Returns the folder and its layout, if a folder (or what its archive unpacked into it) holds one."""
    for layout in CIFAR_LAYOUTS:
        for folder in (root, root / layout.folder):
            if (folder / layout.names).is_file() and any((folder / file).is_file() for files in layout.files.values() for file in files):
                return folder, layout
    return None


def find_idx(folder: Path) -> list[str]:
    """Returns the names of the splits that a folder has IDX files for: `train`, `t10k`."""
    return sorted({path.name.partition("-images")[0] for path in folder.glob("*-images*idx3*") if path.is_file()})


def idx_names(split: str, what: str, num_dimensions: int) -> list[str]:
    """Returns the names under which an IDX file is published, the usual one first.

    Args:
        what: `images` or `labels`.
    """
    return [f"{split}-{what}{mark}idx{num_dimensions}-ubyte{ending}" for mark in "-." for ending in ("", ".gz")]


def unused_columns(options: Pictures, kind: str) -> list[str]:
    """Returns a line for each column that is named although the format has none: an experiment written for parquet, with another source."""
    if kind not in WITHOUT_COLUMNS:
        return []
    named = {name: getattr(options, name) for name in ("image", "label") if getattr(options, name) != Pictures.model_fields[name].default}
    return [f"task.{name}={value} is not used: data of the format {kind} has no columns" for name, value in named.items()]
