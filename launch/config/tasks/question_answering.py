"""Options of extractive question answering."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.data import Data
from launch.config.errors import Problem
from launch.config.tasks.base import Metrics, TaskSection


class QuestionAnswering(TaskSection):
    """Answers that stand in a text: where they begin and end (SQuAD)."""

    READS = "texts"
    ROWS_ARE_SAMPLES = False
    SMOOTHS_LABELS = False  # the classes are the tokens of a window: as many as it happens to have
    USAGE = (
        "from trainers.texts.answers import load_answerer",
        'answer = load_answerer("{model}")',
        'print(answer("Who wrote it?", "The notes were written by Ada Lovelace in 1843."))',
    )

    kind: Literal["question_answering"] = Field(description="Which task this is; chooses the other keys.")
    question: str = Field("question", description="Column of the question.")
    context: str = Field("context", description="Column of the text that holds the answer.")
    answers: str = Field("answers", description="Column of the answers: {text: [...], answer_start: [...]}, starts counted in characters from 0.")
    article: str | None = Field(
        "title",
        description="Column of the article a context is from: data.validation_fraction and its like cut whole articles. null: single questions.",
    )
    max_length: int = Field(384, ge=16, description="Longest input in tokens; a longer context is read in several overlapping windows.")
    stride: int = Field(128, ge=0, description="Tokens of the context that two neighbouring windows share.")
    max_answer_length: Annotated[int, Field(ge=1)] = Field(30, description="Longest answer in tokens.")
    no_answer: bool = Field(False, description="Whether questions may have no answer (SQuAD 2.0). false: such a row cannot be used.")

    def metrics(self) -> Metrics:
        return {"exact_match": "max", "f1": "max", "loss": "min"}

    def columns(self) -> dict[str, list[str]]:
        article = {"task.article": [self.article]} if self.article else {}
        return {"task.question": [self.question], "task.context": [self.context], "task.answers": [self.answers], **article}

    def problems(self, data: Data) -> list[Problem]:
        """Windows share at most half of their tokens."""
        most = self.max_length // 2
        what = f"{self.stride} tokens that neighbouring windows share, of the {self.max_length} of a window"
        return [Problem(what, key="task.stride", allowed=f"up to {most}")] if self.stride > most else []
