"""Turns what stands in a label column into class numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.config.errors import ConfigError, Problem
from launch.config.tasks import Pictures, TextClassification
from trainers.reading.numbers import parse_number
from trainers.reading.rows import BadRows, Split

MAX_CLASSES = 1000
"""More distinct labels than this are no classes: somebody named the wrong column, or ratings."""

MAX_LEARNED = 1e15
"""Largest number that is learned; the square of one above 1.8e19, and the sum of many below it, are no numbers of single precision."""


@dataclass(frozen=True)
class Labels:
    """The class of each row.

    Args:
        names: of the classes, in the order of their numbers.
        numbers: split -> class number (or value) a row; None where the row has none (bad, or left out).
        notes: what a person should know about them, a line each.
    """

    names: list[str]
    numbers: Mapping[str, Sequence[Any]]
    notes: tuple[str, ...] = ()


def read_labels(splits: Mapping[str, Split], options: TextClassification | Pictures, bad_rows: BadRows) -> Labels:
    """Returns the classes of all splits; rows with an impossible label go to `bad_rows`.

    Classes are, in this order of preference: task.label_names, the names the data set brings, the sorted values of the train split.

    Raises:
        ConfigError: labels that cannot be classes at all.
    """
    if isinstance(options, TextClassification) and options.label_threshold is not None:
        return _read_ratings(splits, options, options.label_threshold, bad_rows)
    train = splits["train"]
    names = options.label_names or train.class_names.get(options.label)
    if names is None:
        classes = _sorted_classes(options, train)
        names, numbers = [str(value) for value in classes], {value: number for number, value in enumerate(classes)}
    else:
        numbers = _numbers_of(names)
        _check_first_number(train, options.label, names)
    result: dict[str, list[int | None]] = {}
    for name, split in splits.items():
        result[name] = []
        for index, raw in enumerate(split.columns[options.label]):
            value = _canonical(raw)
            number = None if value is None else numbers.get(value)
            if number is None:
                is_missing = value is None and not isinstance(raw, (list, dict)) and raw not in (math.inf, -math.inf)
                what = "the label is missing" if is_missing else f"the label {raw!r} is not a class"
                bad_rows.add(split.place(index), what, allowed=_listed(names))
            result[name].append(number)
    return Labels(names, result)


def read_values(splits: Mapping[str, Split], column: str, bad_rows: BadRows) -> Labels:
    """Returns the number that stands in each row; what is none goes to `bad_rows`.

    Raises:
        ConfigError: the train split holds one value only, so that there is nothing to learn.
    """
    result = {}
    for name, split in splits.items():
        result[name] = [parse_number(raw) for raw in split.columns[column]]
        for index, (raw, value) in enumerate(zip(split.columns[column], result[name], strict=True)):
            if value is None:
                bad_rows.add(split.place(index), f"the label {raw!r} is not a number")
            elif abs(value) > MAX_LEARNED:
                allowed = f"numbers from -{MAX_LEARNED:g} to {MAX_LEARNED:g}, whose squared errors single precision can hold; best around 1"
                bad_rows.add(split.place(index), f"the label {raw!r} is too large to be learned", allowed)
                result[name][index] = None
    bad_rows.check()
    found = {value for value in result["train"] if value is not None}
    if len(found) < 2:
        what = f"all labels of the column {column!r} are {found.pop():g}" if found else f"the column {column!r} holds no number"
        raise ConfigError(Problem(what, splits["train"].origin, "task.label", allowed="different numbers in the train split"))
    return Labels([], result)


def missing_classes(present: set[int], names: Sequence[str], limit: int | None) -> list[str]:
    """Returns a warning if the training will not see every class."""
    missing = [name for number, name in enumerate(names) if number not in present]
    if not missing:
        return []
    why = f": data.limit takes the first {limit} of each split, as they stand in the source" if limit else ""
    return [f"warning: no sample to train on is of the class {' or '.join(missing[:20])}{why}"]


def single_values(numbers: Mapping[str, Sequence[float]], limit: int | None) -> list[str]:
    """Returns a warning for each split whose rows all have the same number."""
    why = f"; data.limit takes the first {limit} of each split" if limit else ""
    return [
        f"warning: all {len(values)} labels of the {split} split are {values[0]:g}: nothing to tell apart, and a correlation is 0{why}"
        for split, values in numbers.items()
        if len(set(values)) == 1
    ]


def _check_first_number(train: Split, column: str, names: Sequence[str]) -> None:
    """Raises ConfigError for numbers that count the classes from 1: all but the last would be taken for the class after them."""
    found = {_canonical(raw) for raw in train.columns[column]}
    if found == set(range(1, len(names) + 1)) and not found & {_canonical(name) for name in names}:
        first = next(index for index, raw in enumerate(train.columns[column]) if _canonical(raw) == len(names))
        what = f"the labels run from 1 to {len(names)}, and class {len(names)} of {len(names)} has the number {len(names) - 1}"
        raise ConfigError(Problem(what, train.place(first), "task.label", allowed="class numbers from 0, or the names of the classes"))


def _numbers_of(names: Sequence[str]) -> dict[int | str, int]:
    """Returns name -> class number; a class may also stand as its number, unless that is the name of another.

    Raises:
        ConfigError: two names that nobody could tell apart in a column: 1 and 01.
    """
    numbers: dict[int | str, int] = {}
    for number, name in enumerate(names):
        value = _canonical(name)
        first = numbers.setdefault(name if value is None else value, number)
        if first != number:
            what = f"the classes {names[first]!r} and {name!r} are one: what stands in a column means both"
            raise ConfigError(Problem(what, key="task.label_names", allowed="names that are different as texts without spaces and as whole numbers"))
    for number in range(len(names)):
        numbers.setdefault(number, number)
    return numbers


def _read_ratings(splits: Mapping[str, Split], options: TextClassification, threshold: float, bad_rows: BadRows) -> Labels:
    names = options.label_names or ["negative", "positive"]
    if len(names) != 2:
        raise ConfigError(Problem(f"{len(names)} names, but a rating above or below a threshold makes two classes", key="task.label_names"))
    result: dict[str, list[int | None]] = {}
    num_left_out = 0
    for name, split in splits.items():
        result[name] = []
        for index, raw in enumerate(split.columns[options.label]):
            rating = parse_number(raw)
            if rating is None:
                bad_rows.add(split.place(index), f"the label {raw!r} is not a number", allowed="ratings, because task.label_threshold is set")
            is_left_out = rating == threshold
            num_left_out += is_left_out
            result[name].append(None if rating is None or is_left_out else int(rating > threshold))
    bad_rows.check()
    low, high = result["train"].count(0), result["train"].count(1)
    if not (low and high):
        what = f"{high} ratings of the train split are above {threshold:g} and {low} below it, so there is one class at most"
        raise ConfigError(Problem(what, splits["train"].origin, "task.label_threshold", allowed="a number between the ratings"))
    note = f"{num_left_out} rows left out: their {options.label} is exactly {threshold:g}"
    return Labels(names, result, (note,) if num_left_out else ())


def _sorted_classes(options: TextClassification | Pictures, train: Split) -> list[int | str]:
    found = {value for raw in train.columns[options.label] if (value := _canonical(raw)) is not None}
    where, key = train.origin, "task.label"
    if len(found) < 2:
        what = f"all labels of the column {options.label!r} are {found.pop()!r}" if found else f"the column {options.label!r} holds no label"
        raise ConfigError(Problem(what, where, key, allowed="two classes or more in the train split"))
    if len(found) > MAX_CLASSES or _are_measured(found):
        fix = "task.label_threshold=0 if they are ratings; otherwise another task.label"
        raise ConfigError(Problem(f"the column {options.label!r} holds {len(found)} different values, which are no classes", where, key, fix=fix))
    if all(isinstance(value, int) for value in found):
        return sorted(found)
    return sorted(found, key=str)


def _are_measured(values: set[int | str]) -> bool:
    """Returns whether all are numbers, and not all of them whole: nobody counts classes so."""
    numbers = [parse_number(value) for value in values]
    return None not in numbers and not all(number is not None and number.is_integer() for number in numbers)


def _canonical(value: object) -> int | str | None:
    """Returns a whole number as int (`1`, `"1"`, `1.0`, `"1.0"`, `true`), any other text stripped, None for nothing and what is no single value."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else str(value)
    if isinstance(value, int):
        return int(value)
    text = "" if value is None or isinstance(value, (list, dict)) else str(value).strip()
    return int(text.partition(".")[0]) if re.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?", text) else text or None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f", ... ({len(names)} classes)" if len(names) > 20 else "")
