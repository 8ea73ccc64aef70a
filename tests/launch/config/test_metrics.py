from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.config.experiment import Evaluate
from launch.config.metrics import read_metrics, read_with_damage, result_records

RECORDS = [
    {"step": 1, "split": "validation", "loss": 0.6, "accuracy": 0.8},
    {"step": 2, "split": "validation", "loss": 0.5, "accuracy": 0.9},
    {"step": 3, "split": "validation", "loss": 0.4, "accuracy": 0.9},
    {"step": 2, "split": "test", "loss": 0.5, "accuracy": 0.85},
]


@pytest.mark.parametrize(
    ("content", "num_records", "damage"),
    [
        (b'{"step": 1, "split": "train"}\n{"step": 2, "sp', 1, None),
        (b'{"step": 1, "split": "train"}\n[]\n', 1, "{path}:2: the line is damaged and passed over"),
        (
            b'{"step": 1\n\xff\xfe\n{"step": 1, "split": "train"}\n{}\n',
            1,
            "3 lines of metrics.jsonl are damaged and passed over (the first: {path}:1)",
        ),
        (b"\x00\x8f\x00", 0, "{path}:1: the line is damaged and passed over"),
    ],
)
def test_what_cannot_be_read_is_counted_and_placed(tmp_path: Path, content: bytes, num_records: int, damage: str | None) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_with_damage(path) == ([], None)
    path.write_bytes(content)
    records, found = read_with_damage(path)
    assert (len(records), found) == (num_records, damage and damage.format(path=path))


def test_the_torn_last_record_of_a_completed_run_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "split": "train"}\n{"step": 1, "split": "te')
    records, damage = read_with_damage(path, is_completed=True)
    assert (len(records), damage) == (1, f"{path}:2: the line is damaged and passed over")


@pytest.mark.parametrize(
    ("metric", "mode", "test", "step"), [("accuracy", "max", "best", 2), ("loss", "min", "best", 3), ("accuracy", "max", "last", 3)]
)
def test_the_result_is_the_record_of_the_weights_that_were_kept(tmp_path: Path, metric: str, mode: str, test: str, step: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS))
    results = result_records(read_metrics(path), Evaluate(metric=metric, mode=mode, test=test))  # type: ignore[arg-type]
    assert results["validation"]["step"] == step
    assert results["test"]["accuracy"] == 0.85
