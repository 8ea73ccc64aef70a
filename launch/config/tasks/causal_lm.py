"""Options of causal language modelling."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.tasks.language_modelling import LanguageModelling


class CausalLm(LanguageModelling):
    """The next token is predicted from those before it."""

    USAGE = (
        "from transformers import pipeline",
        'write = pipeline("text-generation", model="{model}")',
        'print(write("the film is", max_new_tokens=20))',
    )

    kind: Literal["causal_lm"] = Field(description="Which task this is; chooses the other keys.")
