"""Local sources that are there and cannot be what they are named for: a folder without a model, a table without the task's columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from launch.config.errors import Problem
from launch.config.experiment import Data, Experiment
from launch.config.run_dir import RunDir
from launch.config.sources import LocalPath, Source
from launch.config.tasks import TaskOptions
from launch.samples import table_format

_MODEL_FILES = ("config.json", "classifier.json")
"""What transformers looks for, and what a run of image_classification writes."""

_MAX_CHARS = 200
"""Of the columns that a message lists."""


def find_unfit_sources(experiment: Experiment, model: Source, data: Source) -> list[Problem]:
    """Returns what the names in a folder and the first line of each table tell; the ranks find the rest."""
    problems = []
    if isinstance(model, LocalPath) and model.path.exists() and not _may_be_model(model.path):
        what = f"{model.path} is not a model's folder: it has no {_MODEL_FILES[0]}"
        problems.append(Problem(what, key="model.source", fix="the folder of a model that save_pretrained wrote, or a hub name"))
    if experiment.task.READS == "texts" and isinstance(data, LocalPath):
        for path in _tables(experiment.data, data.path):
            problems += _missing_columns(path, experiment.data, experiment.task)
    return problems


def _may_be_model(path: Path) -> bool:
    return RunDir(path).resolved.is_file() or any((path / name).is_file() for name in _MODEL_FILES)


def _tables(data: Data, source: Path) -> Iterator[Path]:
    named = [data.splits.train, data.splits.validation, data.splits.test]
    paths = [source / name for name in named if name is not None] if source.is_dir() else [source]
    return (path for path in dict.fromkeys(paths) if path.is_file())


def _missing_columns(path: Path, data: Data, task: TaskOptions) -> list[Problem]:
    kind = table_format(path, data)
    try:
        names = data.columns if data.columns and kind in ("csv", "tsv") else _first_names(path, kind, data)
    except (OSError, UnicodeError, LookupError, ValueError, csv.Error):
        return []  # the ranks name what cannot be read, with its line
    if names is None:
        return []
    wanted = {name: key for key, names_of_key in task.columns().items() for name in names_of_key}
    listed = ", ".join(names)
    allowed = f"the columns: {listed if len(listed) <= _MAX_CHARS else listed[: _MAX_CHARS - 3] + '...'}"
    fix = "data.columns=[...] if the file has no header" if kind != "jsonl" and data.columns is None else None
    return [Problem(f"there is no column {name!r}", str(path), key, allowed, fix) for name, key in wanted.items() if name not in names]


def _first_names(path: Path, kind: str | None, data: Data) -> list[str] | None:
    """Returns the names of the columns as the first line has them; None: they are not to be found there."""
    encoding = "utf-8-sig" if data.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else data.encoding
    with path.open(encoding=encoding, newline="") as file:
        if kind == "jsonl":
            row = json.loads(next((line for line in file if line.strip()), "null"))
            return list(row) if isinstance(row, dict) and data.on_bad_row == "stop" else None
        if kind not in ("csv", "tsv"):
            return None
        rows = csv.reader(file) if kind == "csv" else csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return next((row for row in rows if row), None)
