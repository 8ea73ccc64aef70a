"""What may differ between the attempts of one run, and what would make it another training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.config.errors import Problem, StateError

ACCEPTED_VARIABLE = "FULLRANK_ACCEPTED_CHANGES"
"""Names, for the ranks, the keys whose change a person has forced: `resume --force`; separated by commas."""

PREPARED = "prepared"
"""Stands for the facts of the prepared data, which are no keys of an experiment; as an accepted key, for all of them."""

MAY_CHANGE = (
    "data.num_workers",
    "train.duration",
    "train.memory_check",
    "train.micro_batch_size",
    "train.precision",
    "evaluate.every",
    "evaluate.early_stopping",
    "evaluate.test",
    "evaluate.batch_size",
    "checkpoint",
    "tracking",
    "model.cache_features",
    "model.compile",
    "model.gradient_checkpointing",
)
"""Keys that may differ; nodes, processes and strategy are no part of an experiment and may too."""

_EMPTY: tuple[Any, ...] = (None, {}, [])


@dataclass(frozen=True)
class Change:
    """A value that may not differ between the attempts of a run, and does."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before!r} -> {self.now!r}"


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[Change]:
    """Yields every change that would make it another training. A key that one of the two does not know (of another version) counts as off."""
    for name in sorted({*before, *now}):
        key, old, new = f"{prefix}{name}", before.get(name), now.get(name)
        is_unknown = name not in before or name not in now
        if key in MAY_CHANGE or old == new or (old in _EMPTY and new in _EMPTY) or (is_unknown and not old and not new):
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed_keys(old, new, f"{key}.")
        else:
            yield Change(key, old, new)


def changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """Yields what shows that a training would go on with other samples, in other order.

    Args:
        before: facts of prepared data: `num_samples`, {split: count}, and `fingerprint`, a hash of what was prepared; what only one of
            the two knows is not compared.
    """
    for name in sorted({*before} & {*now}):
        old, new = before[name], now[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from (Change(f"{PREPARED}.{name}.{key}", old[key], new[key]) for key in sorted({*old} & {*new}) if old[key] != new[key])
        elif old != new:
            yield Change(f"{PREPARED}.{name}", old, new)


def check_end(path: Path, step: int, end: int) -> None:
    """Refuses a training that would end before the step it is at.

    Raises:
        StateError: names both.
    """
    if step > end:
        what = f"the run is at step {step} and would end at step {end}, which it has passed"
        raise StateError(Problem(what, where=str(path), key="train.duration", fix=f'train.duration="{step} steps" to end here, or a longer one'))
