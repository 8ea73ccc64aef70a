"""What every task of one label a sample shares: the loss, its count, and the metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.tasks import Batch

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class Classification(ABC):
    """The half of trainers.tasks.Task that does not depend on what is classified; a batch has `labels`, int64 [B]."""

    label_names: list[str]
    fingerprint: str | None = None
    """Hash of the prepared data (trainers.data_facts); None: prepared by a fullrank that kept none."""

    @abstractmethod
    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns float32 [B, C]; the loss is ours, so the labels stay outside."""

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        logits, labels = self.logits(model, batch), batch["labels"]
        loss_sum = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)
        return loss_sum, torch.tensor(labels.numel(), device=labels.device)

    def batch_count(self, batch: Batch) -> int:
        return batch["labels"].numel()

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        logits, labels = self.logits(model, batch), batch["labels"]
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return losses, torch.tensor(labels.numel(), device=labels.device), (logits.argmax(dim=-1), labels)

    def build_metrics(self) -> MetricCollection:
        # Imported at the first evaluation: 0.7 s that no start has to wait for (measured warm, after transformers).
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

        from trainers.tasks.matthews import Matthews

        num_classes = len(self.label_names)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "f1": MulticlassF1Score(num_classes, average="macro"),
                "matthews": Matthews(num_classes),
                "confusion_matrix": MulticlassConfusionMatrix(num_classes),
            }
        )
