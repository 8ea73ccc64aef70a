"""The nine tasks of GLUE: text classification or regression, judged as the benchmark does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MulticlassConfusionMatrix

from launch.config.experiment import Experiment
from launch.config.sources import HubName, parse_source
from launch.config.tasks import Glue, TextClassification
from trainers.reading.rows import BadRows, Split
from trainers.tasks.correlations import Pearson, Spearman
from trainers.tasks.labels import Labels, read_labels, read_values
from trainers.tasks.matthews import Matthews
from trainers.tasks.text_classification import TextClassificationTask
from trainers.tasks.text_regression import TextRegressionTask
from trainers.tasks.texts import prepared


def build_task(experiment: Experiment) -> GlueClassification | GlueRegression:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    options = experiment.task
    assert isinstance(options, Glue)
    build = GlueClassification if options.task.label_names else GlueRegression
    return build(experiment, *prepared(experiment, lambda splits, bad_rows: _read_targets(splits, options, bad_rows), hub_name(experiment)))


def hub_name(experiment: Experiment) -> str:
    """Returns the data's source, with the task as configuration where it is a data set of the hub and names none."""
    source, options = experiment.data.source, experiment.task
    assert isinstance(options, Glue)
    place = parse_source(source, "data.source")
    return f"{source}:{options.name}" if isinstance(place, HubName) and place.configuration is None else source


class GlueClassification(TextClassificationTask):
    """A task of classes."""

    def build_metrics(self) -> MetricCollection:
        options, num_classes = self._options, len(self.label_names)
        assert isinstance(options, Glue)
        known: dict[str, Metric] = {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "matthews": Matthews(num_classes),
            **({"f1": BinaryF1Score()} if num_classes == 2 else {}),  # of class 1, as the benchmark's
        }
        return Scored({name: known[name] for name in options.task.metrics} | {"confusion_matrix": MulticlassConfusionMatrix(num_classes)})


class GlueRegression(TextRegressionTask):
    """STS-B: how similar two sentences are, from 0 to 5."""

    def build_metrics(self) -> MetricCollection:
        return Scored({"pearson": Pearson(), "spearman": Spearman()})


class Scored(MetricCollection):
    """Metrics and their mean, the task's score in the benchmark (table 1 of the paper averages the metrics of a task)."""

    def compute(self) -> dict[str, Tensor]:
        values: dict[str, Tensor] = super().compute()
        numbers = [value.double() for value in values.values() if value.ndim == 0]
        return values | {"score": sum(numbers[1:], start=numbers[0]) / len(numbers)}


def _read_targets(splits: Mapping[str, Split], options: Glue, bad_rows: BadRows) -> Labels:
    if not options.task.label_names:
        return read_values(splits, options.label, bad_rows)
    values: dict[str, Any] = {"kind": "text_classification", "text": options.text, "label": options.label}
    return read_labels(splits, TextClassification(**values, label_names=list(options.task.label_names)), bad_rows)
