"""Reads metrics.jsonl, the record of a run's training and evaluations: one reader for the launcher and for the training."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launch.config.experiment import Evaluate

Record = dict[str, Any]

NOT_METRICS = ("step", "epoch", "split", "attempt", "time")
"""Keys of a record that say what it is about; every other key is a metric of its split."""

_SPLITS = ("train", "validation", "test")


def read_metrics(path: Path, is_completed: bool = False) -> list[Record]:
    """Returns the whole records of a metrics.jsonl, oldest first; none if there is no file. What is damaged is warned of."""
    records, damage = read_with_damage(path, is_completed)
    if damage:
        print(f"warning: {damage}", file=sys.stderr)
    return records


def read_with_damage(path: Path, is_completed: bool = False) -> tuple[list[Record], str | None]:
    """Returns the whole records, and in words what could not be read; None: everything was.

    A last line without its end is not damaged if it begins as a record does: it is being written, or was torn by a kill, and is
    dropped when the run is opened again. That of a completed run is damaged: nobody will write it again.
    """
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], f"{path} cannot be read: {error.strerror}"
    records = [parse_record(line) for line in lines]
    damaged = [number for number, record in enumerate(records, start=1) if record is None]
    if tail and (is_completed or not tail.startswith(b"{")):
        damaged.append(len(lines) + 1)
    whole = [record for record in records if record is not None]
    if not damaged:
        return whole, None
    many = f"{len(damaged)} lines of {path.name} are damaged and passed over (the first: {path}:{damaged[0]})"
    return whole, many if len(damaged) > 1 else f"{path}:{damaged[0]}: the line is damaged and passed over"


def parse_record(line: bytes) -> Record | None:
    """Returns the record in a line, or None if it holds none that a reader could use."""
    try:
        record = json.loads(line)
        is_usable = isinstance(record["split"], str) and isinstance(record["step"], int)
    except (ValueError, TypeError, LookupError):
        return None
    return record if is_usable else None


def result_records(records: Sequence[Record], options: Evaluate) -> dict[str, Record]:
    """Returns {split: the record of the weights that are the result}: the best validation record, unless the last weights are kept."""
    results = last_records(records)
    best = best_record(records, options)
    return results | {"validation": best} if best and options.test == "best" else results


def best_record(records: Sequence[Record], options: Evaluate) -> Record | None:
    """Returns the validation record with the best metric, the first of equals as in training; None if there was no evaluation."""
    judged = [record for record in records if record["split"] == "validation" and options.metric in record]
    choose = max if options.mode == "max" else min
    return choose(judged, key=lambda record: float(record[options.metric])) if judged else None


def last_records(records: Sequence[Record]) -> dict[str, Record]:
    """Returns {split: its newest record}, in the order train, validation, test."""
    newest = {record["split"]: record for record in records}
    return {split: newest[split] for split in sorted(newest, key=lambda split: _SPLITS.index(split) if split in _SPLITS else len(_SPLITS))}
