"""A task of one's own: image classification that looks harder at what it gets wrong (focal loss, arXiv:1708.02002)."""

from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional

from launch.config.tasks import ImageClassification
from trainers.images.samples import prepared
from trainers.tasks.image_classification import ImageClassificationTask


class Options(ImageClassification):
    kind: Literal["image_classification"] = "image_classification"
    gamma: float = Field(2.0, ge=0, description="How much less an easy sample counts; 0 is cross-entropy.")


class FocalTask(ImageClassificationTask):
    def train_loss(self, model, batch, label_smoothing):
        losses = functional.cross_entropy(self.logits(model, batch), batch["labels"], reduction="none", label_smoothing=label_smoothing)
        weights = (1 - torch.exp(-losses)) ** self.options.gamma
        return (weights * losses).sum(), torch.tensor(len(losses))


def build_task(experiment):
    return FocalTask(experiment, *prepared(experiment))
