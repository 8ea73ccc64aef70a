"""Perplexity from the losses that are there already."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Perplexity(Metric):
    """exp of the mean loss a target; torchmetrics' own wants the logits of every token, padding too."""

    full_state_update = False
    loss_sum: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss_sum: Tensor, count: Tensor) -> None:
        self.loss_sum += loss_sum.double()
        self.count += count.double()

    def compute(self) -> Tensor:
        """Returns the perplexity, float64 []."""
        return torch.exp(self.loss_sum / self.count)
