from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from launch.config.run_dir import RunDir
from trainers.manifest import find_newest, prune, publish, sorted_checkpoints


def test_manifest_loads_without_torch() -> None:
    code = "import sys, trainers.manifest; print([name for name in ('torch', 'numpy') if name in sys.modules])"
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


def _publish(run: RunDir, name: str) -> None:
    temporary = run.checkpoints / f".{name}.tmp"
    temporary.mkdir(parents=True)
    (temporary / "weights").write_text(name)
    publish(temporary, run.checkpoints / name, {"step": 0})
