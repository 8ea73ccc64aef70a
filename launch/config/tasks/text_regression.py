"""Options of text regression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.tasks.base import Metrics
from launch.config.tasks.texts import TextsSection


class TextRegression(TextsSection):
    """One number for a text, or for a pair of texts: a rating, a similarity."""

    SMOOTHS_LABELS = False
    USAGE = (
        "from transformers import pipeline",
        'rate = pipeline("text-classification", model="{model}", function_to_apply="none")',
        'print(rate("a film that is warm, funny and true"))  # its score is the number',
    )

    kind: Literal["text_regression"] = Field(description="Which task this is; chooses the other keys.")
    label: str = Field(description="Column of the number.")

    def metrics(self) -> Metrics:
        return {"pearson": "max", "spearman": "max", "loss": "min"}
