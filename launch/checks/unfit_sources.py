"""Local data that is there and cannot be what it is named for: a file of another format, missing columns, folders without pictures."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from launch.config.annotation_files import QUICKLY_READ, read_annotation_file
from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.picture_files import find_cifar, find_idx, missing_folders
from launch.config.row_files import kind_problem, row_format
from launch.config.sound_files import is_audio_folder, recordings_of_splits
from launch.config.sources import LocalPath, Source
from launch.config.tasks import AnnotatedPictures, Pictures, SegmentationFcn, SpeechCtc, TaskOptions

_MAX_CHARS = 200
"""Of the columns, or categories, that a message lists."""


def find_unfit_sources(experiment: Experiment, data: Source) -> list[Problem]:
    """Returns what the names in a folder and the beginning of each file tell; the ranks find the rest."""
    problems: list[Problem] = []
    if experiment.task.READS in ("texts", "tables") and isinstance(data, LocalPath):
        for path in _tables(experiment.data, data.path):
            problems += _unfit_table(path, experiment.data, experiment.task)
    if isinstance(experiment.task, SpeechCtc) and isinstance(data, LocalPath):
        problems += _unfit_recordings(experiment.data, data.path, experiment.task)
    if isinstance(experiment.task, Pictures) and isinstance(data, LocalPath) and data.path.is_dir():
        problems += _unfit_pictures(experiment.data, data.path, experiment.task)
    if isinstance(experiment.task, AnnotatedPictures) and isinstance(data, LocalPath):
        problems += _unfit_annotations(experiment.data, data.path, experiment.task)
    return problems


def _split_names(data: Data) -> list[str]:
    return [name for name in (data.splits.train, data.splits.validation, data.splits.test) if name is not None]


def _tables(data: Data, source: Path) -> Iterator[Path]:
    paths = [source / name for name in _split_names(data)] if source.is_dir() else [source]
    return (path for path in dict.fromkeys(paths) if path.is_file())


def _unfit_recordings(data: Data, place: Path, task: SpeechCtc) -> list[Problem]:
    """Returns what is wrong with the patterns of a folder of recordings, or with the columns of tables beside them."""
    try:
        if not is_audio_folder(place, data):
            return [problem for path in _tables(data, place) for problem in _unfit_table(path, data, task)]
        splits, problems = recordings_of_splits(place, data)
    except OSError:
        return []  # the ranks say why it cannot be read
    names = [path.name for path in splits.get("train", [])]
    if task.name_pattern is not None and names and not any(re.fullmatch(task.name_pattern, name) for name in names):
        problems.append(Problem(f"matches no name of the train split's {len(names)} recordings, e.g. {names[0]}", key="task.name_pattern"))
    return problems


def _unfit_pictures(data: Data, folder: Path, task: Pictures) -> list[Problem]:
    """Returns what is wrong with folders of classes; nothing where another format is named, or lies there."""
    if data.format not in ("auto", "image_folder") or find_idx(folder) or find_cifar(folder):
        return []
    wanted = {split: name for split, name in data.splits.model_dump().items() if name is not None}
    try:
        problems = missing_folders(folder, wanted, task.label_names)
    except OSError:
        return []  # the ranks say why it cannot be read
    is_parquet = data.format == "auto" and problems and any(folder.rglob("*.parquet"))
    return [] if is_parquet else problems


def _unfit_annotations(data: Data, folder: Path, task: AnnotatedPictures) -> list[Problem]:
    """Returns what is wrong with annotation files as a whole, and with what the task names beside them; the ranks look at each annotation."""
    named = {"task.pictures": task.pictures} | ({"task.masks": task.masks} if isinstance(task, SegmentationFcn) and task.masks else {})
    problems = [Problem(f"there is no folder {folder / name}", key=key) for key, name in named.items() if not (folder / name).is_dir()]
    for split, name in data.splits.model_dump().items():
        path = folder / (name or "")
        if name is not None and path.is_file() and path.stat().st_size <= QUICKLY_READ:
            try:
                categories = read_annotation_file(path, f"data.splits.{split}")["categories"]
            except ConfigError as error:
                problems += error.problems
                continue
            if split == "train":
                problems += _unknown_categories(path, [category["name"] for category in categories], task.label_names or [])
    return problems


def _unknown_categories(path: Path, known: Sequence[str], wanted: Sequence[str]) -> list[Problem]:
    unknown = [name for name in wanted if name not in known]
    listed = _shortened(", ".join(known))
    return [Problem(f"{path} has no category {unknown[0]!r}", key="task.label_names", allowed=listed)] if unknown else []


def _unfit_table(path: Path, data: Data, task: TaskOptions) -> list[Problem]:
    try:
        problem = kind_problem(path, data)
    except OSError:
        return []
    return [problem] if problem else _unfit_columns(path, data, task)


def _unfit_columns(path: Path, data: Data, task: TaskOptions) -> list[Problem]:
    kind = row_format(path, data)
    try:
        names = data.columns if data.columns and kind in ("csv", "tsv") else _first_names(path, kind, data)
    except UnicodeError as error:
        return [Problem(f"is not {data.encoding}: {error}", str(path), "data.encoding")]
    except (OSError, ValueError, RecursionError, csv.Error):
        return []  # the ranks name what cannot be read, with its line
    if names is None:
        return []
    wanted = {name: key for key, names_of_key in task.columns().items() for name in names_of_key}
    allowed = f"the columns: {_shortened(', '.join(names))}"
    fix = "data.columns=[...] if the file has no header" if kind != "jsonl" and data.columns is None else None
    problems = [Problem(f"{path} has no column {name!r}", None, key, allowed, fix) for name, key in wanted.items() if name not in names]
    doubled = {name: names.count(name) for name in wanted if names.count(name) > 1}
    return problems + [Problem(f"the column {name!r} stands {count} times", str(path), "data.columns") for name, count in doubled.items()]


def _first_names(path: Path, kind: str | None, data: Data) -> list[str] | None:
    """Returns the names of the columns as the first line has them; None: they are not to be found there."""
    encoding = "utf-8-sig" if data.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else data.encoding
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        if kind == "jsonl":
            row = json.loads(next((line for line in file if line.strip()), "null"))
            return list(row) if isinstance(row, dict) and data.on_bad_row == "stop" else None
        if kind not in ("csv", "tsv"):
            return None
        rows = csv.reader(file) if kind == "csv" else csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return next((row for row in rows if row), None)


def _shortened(text: str) -> str:
    """Returns a text that fits into a message, and can be printed: a name may hold bytes that were not decoded."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 3]}..."
