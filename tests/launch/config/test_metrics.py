from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.config.experiment import Evaluate
from launch.config.metrics import read_metrics, result_records

RECORDS = [
    {"step": 1, "split": "validation", "loss": 0.6, "accuracy": 0.8},
    {"step": 2, "split": "validation", "loss": 0.5, "accuracy": 0.9},
    {"step": 3, "split": "validation", "loss": 0.4, "accuracy": 0.9},
    {"step": 2, "split": "test", "loss": 0.5, "accuracy": 0.85},
]


@pytest.mark.parametrize(
    ("metric", "mode", "test", "step"), [("accuracy", "max", "best", 2), ("loss", "min", "best", 3), ("accuracy", "max", "last", 3)]
)
def test_the_result_is_the_record_of_the_weights_that_were_kept(tmp_path: Path, metric: str, mode: str, test: str, step: int) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS))
    results = result_records(read_metrics(path), Evaluate(metric=metric, mode=mode, test=test))  # type: ignore[arg-type]
    assert results["validation"]["step"] == step
    assert results["test"]["accuracy"] == 0.85
