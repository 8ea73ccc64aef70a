from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch.config.errors import StateError
from launch.config.run_dir import RunDir
from trainers.checkpoints.manifest import find_newest, prune, publish, sorted_checkpoints


def test_manifest_loads_without_torch() -> None:
    code = "import sys, trainers.checkpoints.manifest; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_checkpoints_are_sorted_by_step_and_strangers_are_passed_over(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-mine"):
        _publish(run, name)
    (run.checkpoints / "checkpoint-11").mkdir()
    assert [path.name for path in sorted_checkpoints(run)] == ["checkpoint-9", "checkpoint-10"]
    assert find_newest(run) == run.checkpoints / "checkpoint-10"


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in (1, 2, 3, 4):
        _publish(run, f"checkpoint-{step}")
    prune(run, keep=1, best_step=2)
    assert [path.name for path in sorted_checkpoints(run)] == ["checkpoint-2", "checkpoint-4"]


def test_checkpoint_that_a_kill_caught_being_replaced_is_found(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("checkpoint-1", "checkpoint-2"):
        _publish(run, name)
    (run.checkpoints / "checkpoint-2").rename(run.checkpoints / ".checkpoint-2.replaced")
    assert find_newest(run) == run.checkpoints / "checkpoint-2"
    _publish(run, "checkpoint-2")
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["checkpoint-1", "checkpoint-2"]


def test_checkpoint_of_a_newer_fullrank_is_refused_and_left_alone(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("checkpoint-1", "checkpoint-2"):
        _publish(run, name)
    manifest = run.checkpoints / "checkpoint-2" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(StateError, match="checkpoint-2: the checkpoint has format 99; this fullrank knows formats up to 1"):
        find_newest(run)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": "abc"}))
    assert find_newest(run) == run.checkpoints / "checkpoint-1"


def test_launcher_passes_over_a_checkpoint_whose_files_have_other_sizes(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("checkpoint-1", "checkpoint-2"):
        _publish(run, name)
    assert run.newest_checkpoint() == run.checkpoints / "checkpoint-2"
    (run.checkpoints / "checkpoint-2" / "weights").write_text("bad")
    assert run.newest_checkpoint() == run.checkpoints / "checkpoint-1"
    (run.checkpoints / "checkpoint-1" / "weights").unlink()
    assert run.newest_checkpoint() is None
    assert len(run.published_checkpoints()) == 2


def _publish(run: RunDir, name: str) -> None:
    temporary = run.checkpoints / f".{name}.tmp"
    temporary.mkdir(parents=True)
    (temporary / "weights").write_text(name)
    publish(temporary, run.checkpoints / name, {"step": 0})
