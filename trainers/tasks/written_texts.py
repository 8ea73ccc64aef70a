"""Metrics of what a model writes: equal to the target, and how much of it is there in its order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.text import ROUGEScore


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


class RougeL(ROUGEScore):
    """The F-measure of the longest common subsequence of words (Lin, 2004), the mean over texts, by torchmetrics."""

    def __init__(self) -> None:
        super().__init__(rouge_keys="rougeL")

    def compute(self) -> Tensor:  # type: ignore[override]
        return super().compute()["rougeL_fmeasure"]
