"""What folders of pictures look like on the disk, for the launcher that counts them and the trainer that reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.config.errors import Problem
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


def class_folders(folder: Path) -> list[str]:
    """Returns the names of a split's classes, sorted: its folders that are not hidden.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def missing_folders(root: Path, wanted: Mapping[str, str], label_names: Sequence[str] | None) -> list[Problem]:
    """Returns a problem for each split whose folder is not there, and for a train split without two classes.

    Args:
        wanted: split -> its folder in `root`.

    Raises:
        OSError: a folder cannot be read.
    """
    there = class_folders(root)
    train_fix = "data.splits.train=. if these are the classes" if len(there) > 1 else None
    problems = []
    for split, name in wanted.items():
        if not (root / name).is_dir():
            fix = train_fix if split == "train" else f"data.splits.{split}=null, and data.{split}_fraction=0.2 to cut one from train"
            allowed = f"a folder of it: {', '.join(there[:20]) or 'none'}"
            problems.append(Problem(f"there is no folder {root / name}", key=f"data.splits.{split}", allowed=allowed, fix=fix))
    names = label_names or (class_folders(root / wanted["train"]) if (root / wanted["train"]).is_dir() else None)
    if names is not None and len(names) < 2:
        what = f"{root / wanted['train']} holds {'one folder' if names else 'no folders'}, and each folder of it is a class"
        allowed = f"two folders of pictures or more, not: {', '.join(names) or 'none'}"
        problems.append(Problem(what, key="data.splits.train", allowed=allowed, fix=train_fix))
    return problems


def unused_columns(options: Pictures, kind: str) -> list[str]:
    """Returns a line for each column that is named although the format has none: an experiment written for parquet, with another source."""
    if kind not in WITHOUT_COLUMNS:
        return []
    named = {name: getattr(options, name) for name in ("image", "label") if getattr(options, name) != Pictures.model_fields[name].default}
    return [f"task.{name}={value} is not used: data of the format {kind} has no columns" for name, value in named.items()]
