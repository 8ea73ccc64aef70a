"""How many samples the train split has, found without the training's libraries."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launch.config.experiment import Experiment
from launch.config.prepared import read_prepared
from launch.config.sources import LocalPath, Source

_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl"}


@dataclass(frozen=True)
class SampleCount:
    """The samples that are trained on, or why their number is not known yet."""

    num_samples: int | None
    reason: str | None = None


def count_train_samples(experiment: Experiment, source: Source) -> SampleCount:
    """Returns the size of the train split: from the prepared data, or by counting the rows of a local file."""
    prepared = read_prepared(experiment)
    if prepared and "train" in prepared:
        return SampleCount(prepared["train"])
    if not isinstance(source, LocalPath):
        return SampleCount(None, "the data has not been fetched yet")
    data = experiment.data
    path = source.path / data.splits.train if source.path.is_dir() else source.path
    kind = _FORMATS.get(path.suffix) if data.format == "auto" else data.format
    if kind not in ("csv", "tsv", "jsonl") or not path.is_file():
        return SampleCount(None, "the data has not been prepared yet")
    drops = {
        "task.label_threshold leaves rows out": getattr(experiment.task, "label_threshold", None) is not None,
        "data.on_bad_row=skip may leave rows out": data.on_bad_row == "skip",
        "a share of the train split is cut for another one": bool(data.validation_fraction or data.test_fraction),
    }
    for reason, applies in drops.items():
        if applies:
            return SampleCount(None, f"{reason}; known once the data has been prepared")
    try:
        num_rows = count_rows(path, kind, data.encoding, has_header=data.columns is None)
    except (OSError, UnicodeError, LookupError, csv.Error) as error:
        return SampleCount(None, f"{path} cannot be counted: {error}")
    return SampleCount(min(num_rows, data.limit) if data.limit else num_rows)


def count_rows(path: Path, kind: str, encoding: str, has_header: bool) -> int:
    """Returns the rows of a table file, blank lines aside; a quoted line break in a csv is part of its row."""
    with path.open(encoding=encoding, newline="") as file:
        if kind == "jsonl":
            return _count_filled(file)
        rows = csv.reader(file) if kind == "csv" else csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return max(sum(1 for row in rows if row) - has_header, 0)


def _count_filled(lines: Iterable[str]) -> int:
    return sum(1 for line in lines if line.strip())
