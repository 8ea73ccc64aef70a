"""Options of text classification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.tasks.base import CLASSIFICATION_METRICS, Metrics
from launch.config.tasks.texts import TextsSection


class ClassifiedTexts(TextsSection):
    """What every way to learn one label for a text has."""

    USAGE = (
        "from transformers import pipeline",
        'classify = pipeline("text-classification", model="{model}")',
        'print(classify("a film that is warm, funny and true"))',
    )

    label: str = Field(description="Column of the label: a class name, a class number, or a rating (see label_threshold).")
    label_names: list[str] | None = Field(
        None,
        min_length=2,
        description="Names of the classes, in the order of their numbers. null: from the data set, or the sorted values of the train split.",
    )
    label_threshold: float | None = Field(
        None,
        description="For numeric ratings: above it is class 1 (positive), below it class 0 (negative), equal is left out and counted. "
        "null: labels are classes.",
    )

    def metrics(self) -> Metrics:
        return CLASSIFICATION_METRICS


class TextClassification(ClassifiedTexts):
    """One label for a text, or for a pair of texts."""

    kind: Literal["text_classification"] = Field(description="Which task this is; chooses the other keys.")
