"""Options of image classification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.tasks.base import CLASSIFICATION_METRICS, Metrics
from launch.config.tasks.pictures import Pictures


class ImageClassification(Pictures):
    """One label for a picture."""

    USAGE = (
        "from trainers.images.classifier import load_classifier",
        'classify = load_classifier("{model}")',
        'print(classify("picture.jpg"))',
    )

    kind: Literal["image_classification"] = Field(description="Which task this is; chooses the other keys.")

    def metrics(self) -> Metrics:
        return CLASSIFICATION_METRICS
