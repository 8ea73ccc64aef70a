"""Text classification: one label for a text or a pair of texts."""

from __future__ import annotations

from launch.config.experiment import Experiment
from launch.config.tasks import TextClassification
from trainers.tasks.classification import Classification
from trainers.tasks.labels import read_labels
from trainers.tasks.texts import TextsTask, prepared


def build_task(experiment: Experiment) -> TextClassificationTask:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    options = experiment.task
    assert isinstance(options, TextClassification)
    return TextClassificationTask(experiment, *prepared(experiment, lambda splits, bad_rows: read_labels(splits, options, bad_rows)))


class TextClassificationTask(TextsTask, Classification):
    """See trainers.tasks.Task for what each method promises."""
