"""Keeps the samples that a model understands least, for a person to look at."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from trainers.reports.rendering import escaped
from trainers.tasks import Task

NUM_WORST = 10
"""Samples with the highest losses that the report shows."""


class Judged(NamedTuple):
    """What the model made of one sample; the largest is the worst, and of equals the one with the smallest index."""

    loss: float
    minus_index: int
    label: int | None = None
    predicted: int | None = None


def worst_of(samples: Iterable[Judged]) -> list[Judged]:
    """Returns the NUM_WORST samples with the highest losses, the worst first."""
    return heapq.nlargest(NUM_WORST, samples)


def judged(indices: list[int], losses: Tensor, arguments: tuple[Any, ...]) -> Iterator[Judged]:
    """Yields the samples of a batch with their losses; none if the task gives one sum for all of them.

    Args:
        losses: float32 [B], or [].
        arguments: of metrics.update; two of shape [B] are the predicted and the true classes.
    """
    if losses.shape != (len(indices),):
        return
    are_classes = len(arguments) == 2 and all(_are_classes(argument, losses) for argument in arguments)
    predicted, labels = (argument.tolist() for argument in arguments) if are_classes else ([None] * len(indices), [None] * len(indices))
    for index, loss, label, guess in zip(indices, losses.tolist(), labels, predicted, strict=True):
        yield Judged(loss if math.isfinite(loss) else math.inf, -index, label, guess)


def _are_classes(argument: Any, losses: Tensor) -> bool:
    return isinstance(argument, Tensor) and argument.shape == losses.shape and not argument.is_floating_point()


def describe_worst(samples: Iterable[Judged], task: Task, split: str, folder: Path) -> list[dict[str, Any]]:
    """Returns the samples as plain values, each shown as Markdown; their pictures go to `folder`."""
    names = task.label_names
    return [
        {
            "index": -sample.minus_index,
            "loss": sample.loss if math.isfinite(sample.loss) else None,
            "label": None if sample.label is None or not names else names[sample.label],
            "predicted": None if sample.predicted is None or not names else names[sample.predicted],
            "shown": _shown(task, split, -sample.minus_index, folder),
        }
        for sample in samples
    ]


def _shown(task: Task, split: str, index: int, folder: Path) -> str:
    """Returns the sample as Markdown; one that cannot be shown (its file is gone) must not end a training."""
    try:
        return task.show_sample(split, index, folder)
    except Exception as error:
        return escaped(f"cannot be shown: {type(error).__name__}: {error}")
