"""Options of distillation: a small text classifier learns from a larger one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.base import Share
from launch.config.tasks.text_classification import ClassifiedTexts, TextClassification


class Distill(ClassifiedTexts):
    """One label for a text, or for a pair of texts, learned from a fine-tuned teacher beside the labels.

    The loss of a sample is (1 - w) CE(label, student) + w T^2 KL(teacher / T, student / T) (Hinton, Vinyals and Dean, 2015, section 2): w is
    soft_share, T the temperature, and T^2 keeps the share of the gradients when T changes.
    """

    kind: Literal["distill"] = Field(description="Which task this is; chooses the other keys.")
    teacher: str = Field(
        min_length=1,
        description="The fine-tuned classifier that is learned from: runs/<a run>, or any other source of a model. model.source is what the "
        "student begins with: the same, cut by `layers` and `vocabulary`, or a smaller model.",
    )
    temperature: float = Field(2.0, gt=0, description="What both networks' logits are divided by where they are compared; higher is softer.")
    soft_share: Share = Field(0.5, description="Share of the teacher in the loss; the labels have the rest.")
    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = Field(
        None, description="Layers of model.source that the student keeps, counted from 0, e.g. [0, 2, 4]. null: all."
    )
    vocabulary: Literal["whole", "train"] = Field(
        "whole",
        description="Words of model.source that the student keeps. train: the pieces that stand in the train split, and every single letter, so "
        "that other words are spelled (WordPiece alone); whole: all.",
    )

    def plain(self) -> TextClassification:
        """Returns the same texts and labels to be learned without a teacher, as the teacher itself learned them."""
        return TextClassification(kind="text_classification", **{key: getattr(self, key) for key in ClassifiedTexts.model_fields if key != "kind"})

    def sources(self) -> dict[str, str]:
        return {"task.teacher": self.teacher}
