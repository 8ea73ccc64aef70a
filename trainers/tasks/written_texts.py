"""Metrics of what a model writes: equal to the target, and how much of it is there in its order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import rouge_score


class ExactMatch(Metric):
    """The share of texts that are the target itself, spaces at the ends and between words aside."""

    full_state_update = False
    higher_is_better = True
    num_equal: Tensor
    num_texts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("num_equal", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_texts", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, written: Sequence[str], targets: Sequence[str]) -> None:
        """Adds texts."""
        self.num_equal += sum(text.split() == target.split() for text, target in zip(written, targets, strict=True))
        self.num_texts += len(targets)

    def compute(self) -> Tensor:
        return self.num_equal.float() / self.num_texts


class RougeL(Metric):
    """The F-measure of the longest common subsequence of words (Lin, 2004), the mean over texts.

    Sums of torchmetrics' function: its own ROUGEScore gathers text by text, and waits for ever where ranks have different numbers of them.
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    num_texts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_texts", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, written: Sequence[str], targets: Sequence[str]) -> None:
        """Adds texts."""
        mean = rouge_score(list(written), list(targets), rouge_keys="rougeL")["rougeL_fmeasure"]
        self.total += mean.double().to(self.total.device) * len(targets)
        self.num_texts += len(targets)

    def compute(self) -> Tensor:
        return (self.total / self.num_texts).float()
