"""Draws the pictures of a run into its figures folder, from what the run directory says now."""

from __future__ import annotations

from pathlib import Path

from launch.config.load import load_experiment
from launch.config.metrics import read_metrics
from launch.config.run_dir import RunDir, read_json

LEARNING_CURVE, CONFUSION_MATRIX = "learning_curve", "confusion_matrix"


def draw_pictures(run: RunDir) -> dict[str, Path]:
    """Returns {name: PNG} of the pictures that there is something to draw in: the learning curve, the confusion matrix."""
    from trainers.reports.figures import draw_confusion_matrix, draw_learning_curve

    experiment = load_experiment(str(run.resolved)).experiment
    records = [record for record in read_metrics(run.metrics) if record["split"] in ("train", "validation")]
    pictures: dict[str, Path] = {}
    run.figures.mkdir(exist_ok=True)
    if records:
        pictures[LEARNING_CURVE] = run.figures / f"{LEARNING_CURVE}.png"
        draw_learning_curve(pictures[LEARNING_CURVE], records, experiment.evaluate.metric, experiment.evaluate.mode)
    for split in ("test", "validation"):  # the test split's matrix if there is one
        evaluation = read_json(run.evaluations / f"{split}.json") or {}
        if evaluation.get("confusion_matrix"):
            pictures[CONFUSION_MATRIX] = run.figures / f"{CONFUSION_MATRIX}.png"
            title = f"{split.capitalize()}, step {evaluation['step']:,}"
            draw_confusion_matrix(pictures[CONFUSION_MATRIX], evaluation["confusion_matrix"], evaluation["label_names"], title)
            break
    return pictures
