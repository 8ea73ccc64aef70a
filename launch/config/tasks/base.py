"""What the launcher must know of any task, beside its options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from launch.config.data import Data
from launch.config.errors import Problem
from launch.config.sections import Section

Share = Annotated[float, Field(gt=0, le=1)]
Metrics = dict[str, Literal["min", "max"]]
"""What a task can be judged by, and which direction is better."""

CLASSIFICATION_METRICS: Metrics = {"accuracy": "max", "f1": "max", "matthews": "max", "loss": "min"}


class TaskSection(Section):
    """The options of one task, and its facts: a task is one such class, and one line in trainers.tasks.TASKS."""

    READS: ClassVar[Literal["texts", "pictures", "sounds", "tables", "own"]]
    """texts: the model is one of transformers, and its tokenizer shapes the prepared data; pictures and the others: any kind of model."""

    ROWS_ARE_SAMPLES: ClassVar[bool] = True
    """Whether each row of the source is one sample, so that they can be counted before the data has been prepared."""

    SMOOTHS_LABELS: ClassVar[bool] = True
    """Whether train.label_smoothing has a meaning: each target is one of several classes."""

    USAGE: ClassVar[Sequence[str]]
    """Three lines of Python that use the trained model; `{model}` is its folder."""

    MATRIX: ClassVar[str] = ""
    """What the report says beside the confusion matrix, where its classes do not speak for themselves."""

    def metrics(self) -> Metrics | None:
        """Returns what the model is judged by; loss is always there. None: only the task's own file knows."""
        raise NotImplementedError

    def usage(self) -> Sequence[str]:
        """Returns the lines that use a model trained with these options."""
        return self.USAGE

    def usage_of(self, model: str | Path, lines: Sequence[str] | None = None) -> list[str]:
        """Returns these lines, or others, for the model of a folder, whatever its name has in it."""
        in_quotes = json.dumps(str(model), ensure_ascii=False)[1:-1]  # JSON escapes quotes, backslashes and newlines as Python does
        return [line.format(model=in_quotes) for line in lines or self.usage()]

    def columns(self) -> dict[str, list[str]]:
        """Returns key -> the columns of the source that it names; no column has two parts to play."""
        return {}

    def problems(self, data: Data) -> list[Problem]:
        """Returns what does not fit together among the options and with those of the data, each with its key; its place is added elsewhere."""
        return []

    def sources(self) -> dict[str, str]:
        """Returns key -> what else is read beside model.source and data.source: a model, or data where the key ends so."""
        return {}

    def with_sources(self, places: Mapping[str, str]) -> Self:
        """Returns the options with these sources in place of some of those."""
        return self.model_copy(update={key.removeprefix("task."): place for key, place in places.items()})
