"""Rows of a data set that can be held to account: where each stands, and which cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from trainers.reading.columns import Indices, select

MAX_NAMED_ROWS = 20
"""Where they stop the training."""

MAX_NAMED_SKIPPED_ROWS = 3
MAX_KEPT_ROWS = 1000
"""A file of the wrong kind has millions of bad rows, and each would cost half a kilobyte of memory."""

Fields = Mapping[str, str]
"""Column that is wanted -> the key of the experiment that names it."""


@dataclass(frozen=True)
class Split:
    """The wanted columns of one split, in the order of the source.

    Args:
        columns: column -> one value a row: lists, or columns of an Arrow file that need not fit into memory.
        origin: file, or `NAME, split train`.
        rows: line of each row in the file, from 1; or its index in the split of a data set, from 0.
        is_text_file: whether `rows` are lines.
        class_names: column -> names of its classes, where the source says so (the hub's ClassLabel).
        places: where each row stands in the file, in words, where no number says it.
    """

    columns: Mapping[str, Sequence[Any]]
    origin: str
    rows: Sequence[int]
    is_text_file: bool
    class_names: dict[str, list[str]] = field(default_factory=dict)
    places: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, index: int) -> str:
        """Returns where a row stands: `train.tsv:12`, `train.json: data[0].paragraphs[1].qas[2]`, or `glue, split train, row 12`."""
        if self.places is not None:
            return f"{self.origin}: {self.places[index]}"
        return f"{self.origin}:{self.rows[index]}" if self.is_text_file else f"{self.origin}, row {self.rows[index]}"

    def select(self, indices: Indices) -> Split:
        """Returns the split with these rows alone, in this order; copies no values."""
        columns = {name: select(values, indices) for name, values in self.columns.items()}
        places = None if self.places is None else select(self.places, indices)
        return replace(self, columns=columns, rows=select(self.rows, indices), places=places)


class BadRows:
    """Rows that cannot be used: with `skip` listed, with `stop` an error that names them.

    Args:
        problems: of the first MAX_KEPT_ROWS of them; `num_rows` counts them all.
    """

    def __init__(self, on_bad_row: str) -> None:
        self.problems: list[Problem] = []
        self.num_rows = 0
        self._stops = on_bad_row == "stop"

    def notes(self, noun: str) -> list[str]:
        """Returns how many rows were skipped, called `noun`, and the first of them; nothing if none was."""
        if not self.num_rows:
            return []
        named = [str(problem) for problem in self.problems[:MAX_NAMED_SKIPPED_ROWS]]
        more = self.num_rows - len(named)
        return [f"{self.num_rows} {noun} skipped (data.on_bad_row=skip):", *named, *([f"and {more} more"] if more else [])]

    def add(self, place: str, what: str, allowed: str | None = None) -> None:
        self.num_rows += 1
        if len(self.problems) < MAX_KEPT_ROWS:
            self.problems.append(Problem(what, place, allowed=allowed))

    def check(self) -> None:
        """Ends with all bad rows at once, unless they are to be skipped.

        Raises:
            ConfigError: names the first of them, and how many more there are.
        """
        if not (self._stops and self.problems):
            return
        named, more = self.problems[:MAX_NAMED_ROWS], self.num_rows - MAX_NAMED_ROWS
        last = f"{more} more rows cannot be used" if more > 0 else "rows that cannot be used stop the training"
        raise ConfigError(*named, Problem(last, key="data.on_bad_row", fix="mend them, or data.on_bad_row=skip to leave them out"))


def check_columns(names: Sequence[str], fields: Fields, origin: str, data: Data | None) -> None:
    """Raises ConfigError for a wanted column that is not there, or a name that stands twice."""
    fix = "data.columns=[...] if the file has no header" if data is not None and data.columns is None and data.format != "parquet" else None
    allowed = f"the columns: {shortened(', '.join(names), 200)}"
    problems = [Problem(f"there is no column {name!r}", origin, key, allowed, fix) for name, key in fields.items() if name not in names]
    problems += [Problem(f"the column {name!r} stands {names.count(name)} times", origin, "data.columns") for name in fields if names.count(name) > 1]
    if problems:
        raise ConfigError(*problems)


def shortened(text: str, width: int = 80) -> str:
    """Returns a text that fits into a message, and can be printed: it may hold bytes that were not decoded."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= width else f"{text[: width - 3]}..."
