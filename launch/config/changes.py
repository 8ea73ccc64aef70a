"""What may differ between the attempts of one run, and what would make it another training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ACCEPTED_VARIABLE = "FULLRANK_ACCEPTED_CHANGES"
"""Names, for the ranks, the keys whose change a person has forced: `resume --force`; separated by commas."""

MAY_CHANGE = (
    "name",
    "data.num_workers",
    "train.duration",
    "train.micro_batch_size",
    "train.precision",
    "evaluate.every",
    "evaluate.early_stopping",
    "evaluate.test",
    "evaluate.batch_size",
    "checkpoint",
    "tracking",
    "model.compile",
    "model.gradient_checkpointing",
)
"""Keys that may differ; nodes, processes and strategy are no part of an experiment and may too."""


@dataclass(frozen=True)
class Change:
    """A value that may not differ between the attempts of a run, and does."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before!r} -> {self.now!r}"


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[Change]:
    """Yields every change that would make it another training. A key that one of the two does not know (of another version) counts as None."""
    for name in sorted({*before, *now}):
        key, old, new = f"{prefix}{name}", before.get(name), now.get(name)
        if key in MAY_CHANGE or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed_keys(old, new, f"{key}.")
        else:
            yield Change(key, old, new)
