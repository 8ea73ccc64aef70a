"""Options of every task that has one target for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.base import TaskSection

Pooling = Literal["pooler", "mean", "first"]


class TextsSection(TaskSection):
    """What is read, and how the network makes one vector of it."""

    READS = "texts"

    kind: str = Field(description="Which task this is; chooses the other keys.")
    text: str | Annotated[list[str], Field(min_length=1, max_length=2)] = Field(
        description="Column of the text, or a list of two columns for a pair (premise and hypothesis)."
    )
    label: str = Field(description="Column of what is to be learned.")
    max_length: int = Field(128, ge=2, description="Longest input in tokens; longer texts are cut at the end.")
    pooling: Pooling | None = Field(
        None,
        description="Which vector a linear layer (named head) reads, on top of the body alone. mean: of the text's tokens; first: of the first "
        "token ([CLS]); pooler: of the first token after the body's own dense layer. null: the head that the library gives such a model.",
    )
    packing: bool = Field(
        False,
        description="Lay the texts of a batch one behind another, so that no layer computes padding; each sees itself alone, and the losses are "
        "those of padded batches. Pays where train.group_by_length is off, which leaves next to no padding. Models built like BERT.",
    )

    def columns(self) -> dict[str, list[str]]:
        return {"task.text": [self.text] if isinstance(self.text, str) else self.text, "task.label": [self.label]}

    def usage(self) -> Sequence[str]:
        if self.pooling is None:
            return self.USAGE
        return (
            "from trainers.models.pooled import load_pooled",
            'predict = load_pooled("{model}")',
            'print(predict("a film that is warm, funny and true"))',
        )
