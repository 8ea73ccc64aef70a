"""`fullrank status SWEEP`: tuned on the validation split; the test split is shown of the best run alone, at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.scheduler.printed import Queued
from launch.scheduler.sweeps import describe_sweep


@pytest.fixture
def sweep(tmp_path: Path, experiment_file: Path) -> Path:
    """Two runs, of which the second is better on the validation split; both have test scores."""
    runs = [tmp_path / "runs" / "tiny" / f"20260101-00000{number}-abcdef" for number in range(2)]
    for run, accuracy in zip(runs, (0.5, 0.75), strict=True):
        run.mkdir(parents=True)
        (run / "resolved.yaml").write_text(experiment_file.read_text() + "evaluate: {metric: accuracy, mode: max}\n")
        (run / "status.json").write_text(json.dumps({"state": "completed", "backend": "local"}))
        records = [{"step": 10, "split": split, "loss": 0.1, "accuracy": accuracy + extra} for split, extra in (("validation", 0), ("test", 0.01))]
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    home = tmp_path / "runs" / "tiny-sweeps" / "20260101"
    home.mkdir(parents=True)
    tasks = [(run, [f"optimizer.lr={lr}"]) for run, lr in zip(runs, ("1e-5", "3e-4"), strict=True)]
    (home / "sweep.json").write_text(json.dumps(describe_sweep(tasks, "accuracy", "max")))
    return home


def test_the_best_on_validation_comes_first_and_alone_shows_its_test_split(sweep, fullrank):
    answer = fullrank("status", sweep)
    rows = [line.split() for line in answer.out.splitlines()]
    assert rows == [
        ["RUN", "STATE", "optimizer.lr", "VALIDATION", "accuracy"],
        ["20260101-000001-abcdef", "completed", "3e-4", "0.7500"],
        ["20260101-000000-abcdef", "completed", "1e-5", "0.5000"],
        ["test", "split,", "best", "run:", "loss", "0.1000", "accuracy", "0.7600"],
    ]


def test_while_runs_are_left_no_test_split_is_shown(sweep, fullrank, monkeypatch):
    monkeypatch.setattr("launch.scheduler.jobs.ask_queue", lambda: {"12_0": Queued("12_0", "PENDING", "Priority", "", "")})
    first = Path(json.loads((sweep / "sweep.json").read_text())["tasks"][0]["run"])
    waiting = {"state": "pending", "backend": "slurm", "job_id": "12_0", "heartbeat": 0.0}
    (first / "status.json").write_text(json.dumps(waiting))
    answer = fullrank("status", sweep)
    assert "test split" not in answer.out
    assert "1 of 2 runs have not ended; then the test split of the best one is shown" in answer.err
