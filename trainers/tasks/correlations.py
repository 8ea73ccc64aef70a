"""Correlations that are 0 where a model gives one value for everything."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef
from torchmetrics.utilities import dim_zero_cat


class Pearson(Metric):
    """Pearson's correlation of predictions and targets.

    Over all values at once, in float64 and in the order of their size: torchmetrics' own joins running means, and its last digits then follow the
    number of ranks.
    """

    predictions: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("predictions", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds a batch, both float32 [B]."""
        self.predictions.append(predictions)
        self.targets.append(targets)

    def compute(self) -> Tensor:
        """Returns the coefficient, float64 []; 0 where it is undefined: all predictions, or all targets, are the same."""
        predictions, targets = dim_zero_cat(self.predictions).double(), dim_zero_cat(self.targets).double()
        if len(predictions.unique()) < 2 or len(targets.unique()) < 2:
            return torch.zeros((), dtype=torch.float64, device=predictions.device)
        order = torch.argsort(predictions + targets, stable=True)
        return self._correlation(predictions[order], targets[order])

    def _correlation(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return pearson_corrcoef(predictions, targets)


class Spearman(Pearson):
    """Pearson's correlation of the ranks; equal values share their mean rank."""

    def _correlation(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return spearman_corrcoef(predictions, targets)
