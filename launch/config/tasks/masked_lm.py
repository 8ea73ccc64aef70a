"""Options of masked language modelling."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.language_modelling import LanguageModelling


class MaskedLm(LanguageModelling):
    """Hidden tokens are guessed from both sides: how BERT is pre-trained, or adapted to texts of another kind."""

    USAGE = (
        "from transformers import pipeline",
        'fill = pipeline("fill-mask", model="{model}")',
        'print(fill(f"a film that is {{fill.tokenizer.mask_token}} and funny"))',
    )

    kind: Literal["masked_lm"] = Field(description="Which task this is; chooses the other keys.")
    mask_probability: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15,
        description="Share of a row's tokens that are guessed, at least one: of 10, 8 are masked, 1 is another token, 1 stays (BERT's recipe). "
        "Drawn by (seed, epoch, row): anew in each epoch; validation and test always see the same.",
    )
    whole_words: bool = Field(False, description="Hide all tokens of a word together.")
