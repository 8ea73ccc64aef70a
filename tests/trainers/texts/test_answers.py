from __future__ import annotations

import pytest
import torch

from trainers.texts.answers import AnswerF1, ExactMatch, Window, best_span, judge


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("in Paris", ["Paris"], 0.0, 2 / 3),
        ("London", ["Paris", "London"], 1.0, 1.0),
        ("tower of Paris", ["Eiffel Tower", "the tower in Paris"], 0.0, 2 / 3),
        ("", [], 1.0, 1.0),
        ("Paris", [], 0.0, 0.0),
    ],
)
def test_answers_are_judged_by_squads_rules(prediction: str, answers: list[str], exact: float, f1: float) -> None:
    assert judge(prediction, answers) == pytest.approx((exact, f1))


def test_metrics_are_means_over_questions_and_not_over_batches() -> None:
    exact, f1 = ExactMatch(), AnswerF1()
    for metric in (exact, f1):
        metric.update(torch.tensor([1.0, 0.0, 0.0]).double(), torch.tensor([1.0, 0.5, 0.0]).double())
        metric.update(torch.tensor([1.0]).double(), torch.tensor([1.0]).double())
    assert (float(exact.compute()), float(f1.compute())) == (0.5, 0.625)


def offsets() -> tuple[torch.Tensor, torch.Tensor]:
    """Two windows of four tokens: the first is of the question, then words of three letters and a space."""
    starts = torch.tensor([[-1, 0, 4, 8], [-1, 8, 12, 16]])
    return starts, torch.where(starts < 0, -1, starts + 3)


def test_the_best_span_is_of_all_windows_and_of_the_context_alone() -> None:
    first, last = torch.zeros(2, 4), torch.zeros(2, 4)
    first[0, 0] = last[0, 0] = 100.0  # of the question
    first[1, 1], last[1, 2] = 3.0, 4.0
    assert best_span(first, last, *offsets(), longest=3) == (7.0, 8, 15)


def test_an_answer_ends_after_it_begins_and_is_no_longer_than_allowed() -> None:
    first, last = torch.zeros(2, 4), torch.zeros(2, 4)
    first[0, 3], last[0, 1] = 5.0, 5.0
    assert best_span(first, last, *offsets(), longest=3)[0] == 5.0
    first, last = torch.zeros(2, 4), torch.zeros(2, 4)
    first[0, 1], last[0, 3] = 5.0, 5.0
    assert best_span(first, last, *offsets(), longest=3) == (10.0, 0, 11)
    assert best_span(first, last, *offsets(), longest=2)[0] == 5.0


def test_a_window_knows_the_answers_tokens_or_says_there_are_none() -> None:
    starts, ends = offsets()
    window = Window([2, 5, 6, 7], None, starts[0].tolist(), ends[0].tolist(), null=0)
    assert window.locate(4, 11) == (2, 3)
    assert window.locate(5, 6) == (2, 2)  # inside of a word
    assert window.locate(4, 15) == (0, 0)  # its end is in the next window
