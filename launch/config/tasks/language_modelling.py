"""Options that masked and causal language modelling share: how texts become rows of tokens."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from launch.config.tasks.base import Metrics, TaskSection


class LanguageModelling(TaskSection):
    """Tokens are predicted from the tokens around them."""

    READS = "texts"
    ROWS_ARE_SAMPLES: ClassVar[bool] = False

    text: str = Field("text", description="Column of the text; a line of a plain text file is a text, and its column is called text.")
    block_size: int = Field(128, ge=4, description="Tokens of a row, which is what train.global_batch_size and data workers count as a sample.")
    rows: Literal["packed", "joined", "single"] = Field(
        "packed",
        description="How texts fill the rows. packed: whole texts side by side, of which none sees another, positions beginning anew: the losses "
        "of single without its padding; joined: one after another and cut every block_size tokens, texts see their neighbours; single: one text "
        "a row, padded to the longest of its batch. A text longer than a row is cut into several.",
    )

    def metrics(self) -> Metrics:
        return {"loss": "min", "perplexity": "min"}

    def columns(self) -> dict[str, list[str]]:
        return {"task.text": [self.text]}
