"""How many samples the train split has, found without the training's libraries."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launch.config.experiment import Experiment
from launch.config.prepared import Listing, list_files, read_prepared, split_names
from launch.config.row_files import row_format
from launch.config.sources import LocalPath, Source
from launch.config.tasks import AnnotatedPictures, OwnTask, Pictures, SegmentationFcn
from launch.sizes.picture_samples import UNREADABLE, count_annotated, count_pictures


@dataclass(frozen=True)
class SampleCount:
    """The samples that are trained on, or why their number is not known yet."""

    num_samples: int | None
    reason: str | None = None


def count_train_samples(experiment: Experiment, source: Source) -> SampleCount:
    """Returns the size of the train split: from the prepared data, or by counting what a local source holds."""
    is_folder = isinstance(source, LocalPath) and not source.path.is_file()
    listing = list_files(source.path, split_names(experiment)) if isinstance(source, LocalPath) and is_folder else None
    prepared = read_prepared(experiment, listing)
    if prepared and "train" in prepared:
        return SampleCount(prepared["train"])
    if not isinstance(source, LocalPath):
        return SampleCount(None, "the data has not been fetched yet")
    reason = _reason_it_may_change(experiment) if source.path.exists() else f"there is no {source.path}"
    if reason is not None:
        return SampleCount(None, reason)
    try:
        count = _count(experiment, source.path, listing or [])
    except (*UNREADABLE, UnicodeError, LookupError, csv.Error) as error:
        return SampleCount(None, f"{source.path} cannot be counted: {error}")
    if count is None:
        return SampleCount(None, "the data has not been prepared yet")
    data = experiment.data
    count -= sum(round(fraction * count) for fraction in (data.validation_fraction, data.test_fraction) if fraction is not None)
    count = count if data.train_fraction is None else round(data.train_fraction * count)
    return SampleCount(min(count, data.limit) if data.limit else count)


def _reason_it_may_change(experiment: Experiment) -> str | None:
    """Returns why not everything that stands in the source is trained on."""
    if isinstance(experiment.task, OwnTask):
        return f"only build_task of {experiment.task.file} knows"
    if not experiment.task.ROWS_ARE_SAMPLES:
        return f"the samples of {experiment.task.kind} are cut out of the rows; known once the data has been prepared"
    if isinstance(experiment.task, SegmentationFcn) and experiment.task.unlabelled == "ignore":
        return "pictures without a labelled pixel are left out; known once the data has been prepared"
    if getattr(experiment.task, "label_threshold", None) is not None:
        return "task.label_threshold leaves rows out; known once the data has been prepared"
    if experiment.data.on_bad_row == "skip":
        return "data.on_bad_row=skip may leave samples out; known once the data has been prepared"
    return None


def _count(experiment: Experiment, source: Path, listing: Listing) -> int | None:
    """Returns the samples of the train split before anything is cut from it; None: not known without the training's libraries."""
    data = experiment.data
    if isinstance(experiment.task, Pictures):
        return count_pictures(experiment.task, data, source, listing)
    if isinstance(experiment.task, AnnotatedPictures):
        return count_annotated(source / data.splits.train, "data.splits.train")
    path = source / data.splits.train if source.is_dir() else source
    kind = row_format(path, data)
    if kind not in ("csv", "tsv", "jsonl") or not path.is_file():
        return None
    return count_rows(path, kind, data.encoding, has_header=data.columns is None)


def count_rows(path: Path, kind: str, encoding: str, has_header: bool) -> int:
    """Returns the rows of a table file, blank lines aside; a quoted line break in a csv is part of its row."""
    with path.open(encoding=encoding, newline="") as file:
        if kind == "jsonl":
            return _count_filled(file)
        rows = csv.reader(file) if kind == "csv" else csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return max(sum(1 for row in rows if row) - has_header, 0)


def _count_filled(lines: Iterable[str]) -> int:
    return sum(1 for line in lines if line.strip())
