"""Text regression: one number for a text or a pair of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from launch.config.experiment import Experiment
from launch.config.tasks import TextRegression
from trainers.tasks import Batch
from trainers.tasks.labels import read_values
from trainers.tasks.texts import TextsTask, prepared

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


def build_task(experiment: Experiment) -> TextRegressionTask:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    options = experiment.task
    assert isinstance(options, TextRegression)
    return TextRegressionTask(experiment, *prepared(experiment, lambda splits, bad_rows: read_values(splits, options.label, bad_rows)))


class TextRegressionTask(TextsTask):
    """Squared errors; a batch has `labels`, float32 [B]. See trainers.tasks.Task for what each method promises."""

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        values, labels = self.logits(model, batch).squeeze(-1), batch["labels"]
        return functional.mse_loss(values, labels, reduction="sum"), torch.tensor(labels.numel(), device=labels.device)

    def batch_count(self, batch: Batch) -> int:
        return batch["labels"].numel()

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        values, labels = self.logits(model, batch).squeeze(-1), batch["labels"]
        errors = functional.mse_loss(values, labels, reduction="none")
        return errors, torch.tensor(labels.numel(), device=labels.device), (values, labels)

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection

        from trainers.tasks.correlations import Pearson, Spearman

        return MetricCollection({"pearson": Pearson(), "spearman": Spearman()})
