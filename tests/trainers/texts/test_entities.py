from __future__ import annotations

import pytest

from trainers.texts.entities import EntityConfusion, EntityF1, EntityPrecision, EntityRecall, Span, confusion, find_spans, tag_names

TAGS = tag_names(["location", "person"])


def spans(text: str) -> list[tuple[int, int, int]]:
    return [tuple(span) for span in find_spans([TAGS.index(tag) for tag in text.split()])]


def test_tags_are_numbered_type_by_type() -> None:
    assert TAGS == ["O", "B-location", "I-location", "B-person", "I-person"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-person I-person O B-location", [(0, 2, 1), (3, 4, 0)]),
        ("B-person B-person", [(0, 1, 1), (1, 2, 1)]),
        ("B-person I-location", [(0, 1, 1), (1, 2, 0)]),
        ("O I-person I-person", [(1, 3, 1)]),
        ("I-location B-location I-location", [(0, 1, 0), (1, 3, 0)]),
        ("", []),
    ],
)
def test_names_begin_where_the_conll_evaluation_has_them_begin(tags: str, expected: list[tuple[int, int, int]]) -> None:
    assert spans(tags) == expected


def test_a_name_counts_only_with_exactly_its_words_and_its_type() -> None:
    true = [Span(0, 2, 0), Span(3, 4, 1), Span(6, 8, 1)]
    found = [Span(0, 2, 0), Span(3, 4, 0), Span(6, 7, 1)]  # right; another type; one word short
    assert confusion(true, found, 2).tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_precision_recall_and_f1_are_over_all_names_of_all_sentences() -> None:
    metrics = [kind(2) for kind in (EntityPrecision, EntityRecall, EntityF1, EntityConfusion)]
    for true, found in (([Span(0, 1, 0)], [Span(0, 1, 0), Span(2, 3, 1)]), ([Span(0, 1, 1), Span(1, 2, 0)], [])):
        for metric in metrics:
            metric.update(confusion(true, found, 2))
    precision, recall, f1, counts = (metric.compute() for metric in metrics)
    assert (float(precision), float(recall), float(f1)) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    assert counts.tolist() == [[1, 0, 1], [0, 0, 1], [0, 1, 0]]


def test_nothing_found_and_nothing_there_is_zero_and_no_error() -> None:
    for kind in (EntityPrecision, EntityRecall, EntityF1):
        metric = kind(1)
        metric.update(confusion([], [], 1))
        assert float(metric.compute()) == 0.0
