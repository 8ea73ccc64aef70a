"""Options of named entity recognition."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.tasks.base import Metrics, TaskSection


class Ner(TaskSection):
    """Names in a sentence: where they begin and end, and of what type they are; each word has a tag (O, B-type, I-type)."""

    READS = "texts"
    USAGE = (
        "from transformers import pipeline",
        'find = pipeline("token-classification", model="{model}", aggregation_strategy="first")',
        'print(find("Ada Lovelace lived in London"))',
    )

    MATRIX = (
        "The row “no name” counts what the model found where there is no name (of exactly these words), its column the names that it did not find; "
        "words outside of both are not counted."
    )

    kind: Literal["ner"] = Field(description="Which task this is; chooses the other keys.")
    tokens: str = Field("tokens", description="Column of the words: a list a sentence. In conll files without data.columns: the first column.")
    tags: str = Field("ner_tags", description="Column of the tags, one a word. In conll files without data.columns: the last column.")
    max_length: int = Field(128, ge=4, description="Longest input in tokens; names beyond it count as missed.")

    def metrics(self) -> Metrics:
        return {"f1": "max", "precision": "max", "recall": "max", "loss": "min"}

    def columns(self) -> dict[str, list[str]]:
        return {"task.tokens": [self.tokens], "task.tags": [self.tags]}
