"""Reads metrics.jsonl, the record of a run's training and evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launch.config.experiment import Evaluate


def read_records(path: Path) -> list[dict[str, Any]]:
    """Returns every whole record, oldest first; a torn last line is passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def result_records(path: Path, options: Evaluate) -> dict[str, dict[str, Any]]:
    """Returns {split: the record of the weights that are the result}: the best validation record, unless the last weights are kept."""
    results = last_records(path)
    judged = [record for record in read_records(path) if record.get("split") == "validation" and options.metric in record]
    if judged and options.test == "best":
        choose = max if options.mode == "max" else min  # the first of equals, as in training
        results["validation"] = choose(judged, key=lambda record: float(record[options.metric]))
    return results


def last_records(path: Path) -> dict[str, dict[str, Any]]:
    """Returns {split: its newest record}, in the order train, validation, test."""
    newest = {str(record.get("split")): record for record in read_records(path)}
    order = ("train", "validation", "test")
    return {split: newest[split] for split in sorted(newest, key=lambda split: order.index(split) if split in order else len(order))}
