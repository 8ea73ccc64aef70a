"""What an evaluation leaves in the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.config.run_dir import RunDir, read_json
from trainers.evaluation import Evaluation, remove_pictures, write_evaluation


class Nameless:
    """A task without classes."""

    label_names: tuple[str, ...] = ()

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        return f"{split} {index}"


def test_pictures_of_an_earlier_evaluation_of_the_split_are_removed_and_no_others(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.figures.mkdir()
    for name in ("test-3.png", "test-boxes.png", "validation-3.png", "learning_curve.png"):
        (run.figures / name).touch()
    remove_pictures(run, "test")
    assert sorted(path.name for path in run.figures.iterdir()) == ["learning_curve.png", "validation-3.png"]


def test_what_a_task_shows_stands_beside_its_metrics(tmp_path: Path) -> None:
    task: Any = Nameless()
    run = RunDir(tmp_path)
    evaluation = Evaluation("test", {"loss": 0.5}, {"counts": [1, 2]}, num_samples=3, seconds=0.1)
    write_evaluation(run, 7, evaluation, task, "## Written words\n\nthe end")
    assert read_json(run.evaluations / "test.json") == {
        "step": 7,
        "metrics": {"loss": 0.5},
        "label_names": [],
        "counts": [1, 2],
        "worst": [],
        "sums_losses": False,
        "illustration": "## Written words\n\nthe end",
    }
