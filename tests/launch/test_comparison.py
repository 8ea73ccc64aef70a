"""Runs side by side: what differs, what they reached, and what a reader must know of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.cli.compare import comparison_lines, loss_curves
from launch.comparison import compare_runs
from launch.config.errors import StateError
from launch.config.experiment import dump_experiment
from launch.config.load import load_experiment
from launch.config.run_dir import RunDir, update_status, write_json

MakeRun = Callable[..., RunDir]


@pytest.fixture
def make_run(tmp_path: Path, experiment_file: Path) -> MakeRun:
    def make(run_id: str, *overrides: str, accuracies: tuple[float, ...] = (0.7, 0.9, 0.8), state: str = "completed", world_size: int = 1) -> RunDir:
        experiment = load_experiment(str(experiment_file), ["evaluate.metric=accuracy", "evaluate.mode=max", *overrides]).experiment
        run = RunDir(tmp_path / "runs" / experiment.name / run_id)
        run.attempt(1).path.mkdir(parents=True)
        run.resolved.write_text(yaml.safe_dump(dump_experiment(experiment)))
        records: list[dict[str, Any]] = []
        for step, accuracy in enumerate(accuracies, start=1):
            records.append({"step": step, "split": "train", "loss": 1 / step, "samples_per_second": 10.0, "time": 1.0})
            records.append(
                {"step": step, "split": "validation", "loss": 2 / step, "accuracy": accuracy, "num_samples": 8, "seconds": 1.0, "time": 1.0}
            )
        run.metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        write_json(run.attempt(1).plan, {"world_size": world_size, "strategy": "auto"})
        update_status(run, state=state, step=len(accuracies), attempt=1, host=socket.gethostname(), pid=os.getpid())
        return run

    return make


def test_damaged_records_are_a_note(make_run: MakeRun) -> None:
    runs = [make_run("20260101-000000-a"), make_run("20260101-000000-b")]
    runs[0].metrics.write_bytes(b"\x00\x8f\n\xff\n")
    (note,) = compare_runs(runs).notes
    assert note == f"a: 2 lines of metrics.jsonl are damaged and passed over (the first: {runs[0].metrics}:1)"


def test_what_differs_is_shown_and_what_is_equal_is_not(make_run: MakeRun) -> None:
    found = compare_runs([make_run("20260101-000000-aaaaaa"), make_run("20260101-000000-bbbbbb", "optimizer.lr=3e-5", world_size=2)])
    assert found.names == ["aaaaaa", "bbbbbb"]
    assert found.configuration == {"optimizer.lr": [1e-4, 3e-5]}
    assert found.launch == {"world_size": [1, 2]}
    assert found.scores["validation accuracy, best"] == [0.9, 0.9]
    assert found.scores["validation step, best"] == [2, 2]
    assert found.scores["samples a second (median)"] == [10.0, 10.0]
    assert found.notes == []


def test_the_text_has_a_column_a_run(make_run: MakeRun) -> None:
    lines = comparison_lines(compare_runs([make_run("a"), make_run("b", "seed=7")]))
    assert [line.split() for line in lines if line.strip()][:8] == [
        ["a", "b"],
        ["experiment", "tiny", "tiny"],
        ["state", "completed", "completed"],
        ["step", "3", "3"],
        ["attempts", "1", "1"],
        ["configuration"],
        ["seed", "0", "7"],
        ["launch:", "no", "difference"],
    ]
    assert lines[-2].startswith("  a  █")


def test_running_runs_different_experiments_and_empty_runs_are_noted(make_run: MakeRun) -> None:
    found = compare_runs([make_run("a", "name=other", "data.source=owner/else"), make_run("b", state="running"), make_run("c", accuracies=())])
    assert found.notes == [
        "these are runs of different experiments: other, tiny",
        "their data differs, so their scores are not of the same samples",
        "b is still running: its numbers are not final",
        "c has no records: it ended, or stands, before its first",
    ]
    assert found.scores["train loss, last"] == [1 / 3, 1 / 3, None]


def test_runs_of_the_same_id_are_told_apart_by_their_experiment(make_run: MakeRun) -> None:
    assert compare_runs([make_run("a"), make_run("a", "name=other")]).names == ["tiny/a", "other/a"]


def test_one_run_the_same_run_and_a_scripts_run_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a")
    with pytest.raises(StateError, match="one run has nothing to be compared with"):
        compare_runs([run])
    with pytest.raises(StateError, match="the same run is named twice"):
        compare_runs([run, RunDir(run.path / ".." / "a")])
    with pytest.raises(StateError, match="a script's run, or none"):
        compare_runs([run, RunDir(tmp_path)])


def test_the_curves_share_steps_and_scale() -> None:
    first, second, none = loss_curves([[(step, 1.0 - step / 48) for step in range(48)], [(0, 1.0), (23, 0.5)], []])
    assert (len(first), first[0], first[-1]) == (48, "█", "▁")
    assert (len(second), second[0], second[-2:]) == (24, "█", "█▄")
    assert none == ""


def test_the_page_has_tables_curves_and_nothing_from_outside(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a"), make_run("b", "model.source=x/<script>")]
    page = tmp_path / "page.html"
    command = [sys.executable, "-P", "-m", "launch", "compare", *(str(run.path) for run in runs), "--html", str(page)]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-2:] == ["", str(page)]
    assert "model.source" in ended.stdout  # the table, as without --html
    text = page.read_text()
    assert "<td><code>x/&lt;script&gt;</code></td>" in text
    assert "<script" not in text
    assert text.count('<img src="data:image/png;base64,') == 1
    assert "http" not in text.replace("http-equiv", "")


def test_a_page_that_cannot_be_written_is_one_message(make_run: MakeRun) -> None:
    runs = [make_run("a"), make_run("b")]
    command = [sys.executable, "-P", "-m", "launch", "compare", *(str(run.path) for run in runs), "--html", "/proc/page.html"]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: /proc/page.html: cannot be written: ")
