"""How well items are ranked: recall and normalised discounted cumulative gain of the first k, each person counted alike.

Sums, not the scores of every person and item that torchmetrics' retrieval metrics keep until the end.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanOverPeople(Metric):
    """The mean of one number a person, of the rankings of the model or of popularity."""

    full_state_update = False
    higher_is_better = True
    total: Tensor
    count: Tensor

    def __init__(self, of_popularity: bool = False) -> None:
        super().__init__()
        self._of_popularity = of_popularity
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, hits: Tensor, popular_hits: Tensor, num_wanted: Tensor) -> None:
        """Adds people.

        Args:
            hits, popular_hits: whether each of the first k is wanted, bool [B, k], the best first: by the model, by popularity.
            num_wanted: int64 [B].
        """
        values = self.values((popular_hits if self._of_popularity else hits).double(), num_wanted)
        self.total += values.sum()
        self.count += len(values)

    def compute(self) -> Tensor:
        return (self.total / self.count).float()

    def values(self, hits: Tensor, num_wanted: Tensor) -> Tensor:
        """Returns the number of each person, float64 [B]."""
        raise NotImplementedError


class Recall(MeanOverPeople):
    """The share of what is wanted that is among the first k, of k at most (Liang et al., arXiv:1802.05814, section 4.2)."""

    def values(self, hits: Tensor, num_wanted: Tensor) -> Tensor:
        return hits.sum(dim=1) / num_wanted.clamp(max=hits.shape[1])


class Ndcg(MeanOverPeople):
    """Each hit counts 1 / log2(1 + its place); 1 if all that is wanted comes first (Järvelin and Kekäläinen, 2002)."""

    def values(self, hits: Tensor, num_wanted: Tensor) -> Tensor:
        places = torch.arange(1, hits.shape[1] + 1, device=hits.device)
        gains = 1 / torch.log2(1 + places.double())
        ideal = (places <= num_wanted[:, None]).double() @ gains
        return hits @ gains / ideal
