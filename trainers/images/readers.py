"""Finds the pictures of each split: folders of classes, IDX and CIFAR files, parquet, data sets of the hub."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from launch.config.picture_files import ENDINGS, class_folders, find_cifar, find_idx, missing_folders, unused_columns
from launch.config.sources import HubName
from launch.config.tasks import Pictures
from trainers.datasets import load_splits
from trainers.images.cifar import read_cifar
from trainers.images.idx import read_idx
from trainers.reading.rows import BadRows, Split
from trainers.sources import locate

FORMATS = ("image_folder", "idx", "cifar", "parquet", "hub")
Wanted = Mapping[str, str]
"""split -> what it is called in the source."""


def load_pictures(data: Data, options: Pictures, bad_rows: BadRows) -> tuple[dict[str, Split], list[str]]:
    """Returns the splits that the source itself has, with the columns of task.image and task.label, and what a person should know of them.

    An image is a path, a mapping of the hub's form ({bytes, path}), or raw pixels, uint8 [H, W, C].

    Raises:
        ConfigError: a source, folder, file or split that is not there or cannot be read as a whole.
    """
    place = locate(data.source, "data.source")
    kind = _format(data, place)
    if kind not in FORMATS:
        raise ConfigError(Problem(f"{kind} is no format of pictures", key="data.format", allowed=", ".join(FORMATS)))
    if isinstance(place, HubName) or kind in ("parquet", "hub"):
        splits = load_splits(data, {options.image: "task.image", options.label: "task.label"}, bad_rows)
        return splits, []
    wanted = {split: name for split, name in data.splits.model_dump().items() if name is not None}
    unused = unused_columns(options, kind)
    if kind == "image_folder":
        try:
            splits, notes = _read_image_folder(place, wanted, options)
        except OSError as error:
            raise ConfigError(Problem(f"cannot be read: {error.strerror or error}", str(error.filename or place), "data.source")) from error
        return splits, unused + notes
    return (read_idx if kind == "idx" else read_cifar)(place, wanted, options), unused


def _format(data: Data, place: Path | HubName) -> str:
    """Returns data.format, or what the source looks like."""
    if data.format != "auto":
        return data.format
    if isinstance(place, HubName):
        return "hub"
    if place.is_file():
        return "parquet"
    if find_idx(place):
        return "idx"
    if find_cifar(place):
        return "cifar"
    if any(place.rglob("*.parquet")):
        return "parquet" if Path(data.splits.train).suffix == ".parquet" else "hub"
    return "image_folder"


def _read_image_folder(root: Path, wanted: Wanted, options: Pictures) -> tuple[dict[str, Split], list[str]]:
    """Reads SPLIT/CLASS/.../picture; the class names are those of the train split's folders, sorted."""
    if missing := missing_folders(root, wanted, options.label_names):
        raise ConfigError(*missing)
    folders = {split: root / name for split, name in wanted.items()}
    names = options.label_names or class_folders(folders["train"])
    problems, splits, passed_over, notes = [], {}, Counter[str](), []
    for split, folder in folders.items():
        unknown = [name for name in class_folders(folder) if name not in names]
        if unknown:
            what = f"the {split} split has classes that {'task.label_names' if options.label_names else 'train'} lacks: {', '.join(unknown)}"
            problems.append(Problem(what, str(folder), f"data.splits.{split}", allowed=", ".join(names[:20])))
            continue
        loose = (entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith("."))
        num_loose = sum(os.path.splitext(name)[1].lower() in ENDINGS for name in loose)
        if num_loose:
            notes.append(f"warning: {num_loose} pictures of {folder} lie in no folder, so they have no class, and were passed over")
        paths: list[str] = []
        labels: list[str] = []
        for name in names:
            found = _pictures_in(folder / name, passed_over)
            paths += found
            labels += [name] * len(found)
        if not paths:
            problems.append(Problem(f"the {split} split has no pictures", str(folder), f"data.splits.{split}", allowed=", ".join(sorted(ENDINGS))))
        splits[split] = Split({options.image: paths, options.label: labels}, str(folder), range(len(paths)), False, {options.label: list(names)})
    if problems:
        raise ConfigError(*problems)
    notes += [f"{count} files of {ending or 'no ending'} are no pictures and were passed over" for ending, count in passed_over.most_common(5)]
    return splits, notes


def _pictures_in(folder: Path, passed_over: Counter[str]) -> Sequence[str]:
    """Returns the paths of all pictures below a folder, sorted; counts the other files by their ending."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            ending = os.path.splitext(file)[1].lower()
            if file.startswith("."):
                continue
            if ending in ENDINGS:
                found.append(os.path.join(parent, file))
            else:
                passed_over[ending] += 1
    return found
