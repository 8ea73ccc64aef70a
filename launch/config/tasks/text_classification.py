"""Options of text classification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.base import CLASSIFICATION_METRICS, Metrics, TaskSection


class TextClassification(TaskSection):
    """One label for a text, or for a pair of texts."""

    READS = "texts"
    USAGE = (
        "from transformers import pipeline",
        'classify = pipeline("text-classification", model="{model}")',
        'print(classify("a film that is warm, funny and true"))',
    )

    kind: Literal["text_classification"] = Field(description="Which task this is; chooses the other keys.")
    text: str | Annotated[list[str], Field(min_length=1, max_length=2)] = Field(
        description="Column of the text, or a list of two columns for a pair (premise and hypothesis)."
    )
    label: str = Field(description="Column of the label: a class name, a class number, or a rating (see label_threshold).")
    max_length: int = Field(128, ge=2, description="Longest input in tokens; longer texts are cut at the end.")
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

    def columns(self) -> dict[str, list[str]]:
        return {"task.text": [self.text] if isinstance(self.text, str) else self.text, "task.label": [self.label]}
