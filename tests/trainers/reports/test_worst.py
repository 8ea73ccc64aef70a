"""The worst samples are those with the highest losses, each once, whatever rank judged them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainers.reports.worst import NUM_WORST, Judged, describe_worst, judged, worst_of


def test_samples_of_a_batch_get_their_loss_and_both_classes() -> None:
    losses = torch.tensor([0.5, float("nan"), 2.0])
    found = list(judged([4, 7, 9], losses, (torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))))
    assert found == [Judged(0.5, -4, 0, 0), Judged(float("inf"), -7, 0, 1), Judged(2.0, -9, 1, 1)]


def test_a_task_that_sums_its_losses_has_no_worst_samples() -> None:
    assert list(judged([4, 7], torch.tensor(3.5), (torch.tensor([0, 1]), torch.tensor([0, 1])))) == []


def test_predictions_that_are_no_classes_leave_the_classes_open() -> None:
    assert list(judged([1], torch.tensor([0.5]), (torch.tensor([0.1]), torch.tensor([0.2])))) == [Judged(0.5, -1)]


def test_the_worst_of_all_ranks_are_sorted_and_ties_go_to_the_first_index() -> None:
    ranks = [[Judged(1.0, -index) for index in range(0, 40, 2)], [Judged(1.0 + (index == 5), -index) for index in range(1, 40, 2)]]
    merged = worst_of(sample for samples in ranks for sample in worst_of(samples))
    assert merged == worst_of(sample for samples in ranks for sample in samples)
    assert [-sample.minus_index for sample in merged] == [5, 0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert len(merged) == NUM_WORST


class Shows:
    label_names = ("no", "yes")

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        return f"{split} {index} in {folder.name}"


class Fails(Shows):
    def show_sample(self, split: str, index: int, folder: Path) -> str:
        raise FileNotFoundError("a_b.jpg")


def test_a_sample_that_cannot_be_shown_says_so(tmp_path: Path) -> None:
    task: Any = Fails()
    (described,) = describe_worst([Judged(2.5, -3, 1, 0)], task, "test", tmp_path)
    assert described["shown"] == "cannot be shown: FileNotFoundError: a\\_b.jpg"


def test_they_are_described_as_plain_values(tmp_path: Path) -> None:
    task: Any = Shows()
    assert describe_worst([Judged(2.5, -3, 1, 0), Judged(float("inf"), -4)], task, "test", tmp_path / "figures") == [
        {"index": 3, "loss": 2.5, "label": "yes", "predicted": "no", "shown": "test 3 in figures"},
        {"index": 4, "loss": None, "label": None, "predicted": None, "shown": "test 4 in figures"},
    ]
