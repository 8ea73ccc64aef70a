from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from launch.config.errors import ConfigError
from launch.config.tasks import TextClassification
from trainers.reading.rows import BadRows, Split
from trainers.tasks.labels import Labels, read_labels


def labels(
    train: Sequence[object], validation: Sequence[object] | None = None, class_names: Sequence[str] = (), **options: Any
) -> tuple[Labels, list[str]]:
    """Returns the labels, and what is wrong with rows."""
    task = TextClassification.model_validate({"kind": "text_classification", "text": "text", "label": "label"} | options)
    names = {"label": list(class_names)} if class_names else {}
    columns = {"train": train} | ({"validation": validation} if validation is not None else {})
    splits = {name: Split({"label": values}, f"{name}.tsv", range(1, len(values) + 1), True, names) for name, values in columns.items()}
    bad_rows = BadRows("skip")
    return read_labels(splits, task, bad_rows), [f"{problem.where}: {problem.what}" for problem in bad_rows.problems]


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        (["pos", "neg", " pos "], ["neg", "pos"], [1, 0, 1]),
        (["10", "9", "10"], ["9", "10"], [1, 0, 1]),
        ([1, 0, 1.0], ["0", "1"], [1, 0, 1]),
        ([True, False, True], ["0", "1"], [1, 0, 1]),
        (["1", "other", "1"], ["1", "other"], [0, 1, 0]),
        (["1.0", "0.0", "1"], ["0", "1"], [1, 0, 1]),
        (["1.5.0", "1_0", "1.5.0"], ["1.5.0", "1_0"], [0, 1, 0]),
        (["9" * 30, "0", "0"], ["0", "9" * 30], [1, 0, 0]),
    ],
)
def test_the_sorted_values_of_train_are_the_classes(values: list[object], names: list[str], numbers: list[int]) -> None:
    found, problems = labels(values)
    assert (found.names, found.numbers, problems) == (names, {"train": numbers}, [])


def test_a_label_that_train_lacks_names_its_row() -> None:
    found, problems = labels(["a", "b"], ["b", "c", None])
    assert found.numbers["validation"] == [1, None, None]
    assert problems == ["validation.tsv:2: the label 'c' is not a class", "validation.tsv:3: the label is missing"]


def test_a_label_that_is_no_single_value_is_a_bad_row() -> None:
    found, problems = labels(["a", "b", [1], {"c": 1}, math.inf])
    assert (found.names, found.numbers["train"]) == (["a", "b"], [0, 1, None, None, None])
    assert problems == [f"train.tsv:{line}: the label {label} is not a class" for line, label in ((3, "[1]"), (4, "{'c': 1}"), (5, "inf"))]


def test_given_names_may_stand_in_the_column_or_be_counted() -> None:
    found, problems = labels(["good", "0", 1, "2", -1], label_names=["bad", "good"])
    assert found.numbers["train"] == [1, 0, 1, None, None]
    assert problems == ["train.tsv:4: the label '2' is not a class", "train.tsv:5: the label -1 is not a class"]


def test_names_that_are_numbers_come_before_counting() -> None:
    assert labels(["1", "0"], label_names=["1", "0"])[0].numbers["train"] == [0, 1]


@pytest.mark.parametrize("names", [["1", "01"], ["1", "1.0"], ["a", " a"]])
def test_two_names_of_one_class_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"task\.label_names: the classes '.*' and '.*' are one"):
        labels(names, class_names=names)


def test_names_of_the_data_set_are_used() -> None:
    assert labels([1, 0], class_names=["bad", "good"])[0] == Labels(["bad", "good"], {"train": [1, 0]})


def test_ratings_are_split_at_the_threshold_and_ties_left_out() -> None:
    found, problems = labels(["2.5", "-0.1", "0", "nan", "good"], label_threshold=0.0)
    assert found == Labels(["negative", "positive"], {"train": [1, 0, None, None, None]}, notes=("1 rows left out: their label is exactly 0",))
    assert problems == ["train.tsv:4: the label 'nan' is not a number", "train.tsv:5: the label 'good' is not a number"]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1, 0, 0.5], {}, "3 different values, which are no classes"),
        (["a", "a"], {}, "all labels of the column 'label' are 'a'"),
        ([None, ""], {}, "the column 'label' holds no label"),
        ([0.5, 0.25, 0.75], {}, r"3 different values, which are no classes\n    try: task.label_threshold=0"),
        ([str(n) for n in range(1001)], {}, "holds 1001 different values"),
        ([1, 2, 0], {"label_threshold": 0.0}, "2 ratings of the train split are above 0 and 0 below it"),
        ([1.0], {"label_threshold": 0.0, "label_names": ["a", "b", "c"]}, "3 names, but a rating"),
    ],
)
def test_what_cannot_be_classes_is_refused(values: list[object], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        labels(values, **options)


def test_class_numbers_that_begin_at_1_are_refused_with_the_place_of_the_last() -> None:
    with pytest.raises(ConfigError, match=r"train\.tsv:\d+: task\.label: the labels run from 1 to 2, and class 2 of 2 has the number 1"):
        labels(["1", "2", "1"], label_names=["bad", "good"])
    assert labels(["1", "2"], label_names=["2", "1"])[0].numbers["train"] == [1, 0]
