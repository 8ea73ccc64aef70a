"""Uses a trained recommender: three lines of Python, items go in, items come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.models.own_networks import load_sized_network
from trainers.ratings.dataset import as_vectors


@dataclass(frozen=True)
class Recommender:
    """What somebody likes goes in, what else it may be comes out."""

    network: nn.Module
    items: list[str]
    top: int

    def __call__(self, likes: Sequence[str]) -> list[str]:
        """Returns items that are not among `likes`, the best first.

        Raises:
            ValueError: names that are no items of the training.
        """
        unknown = [name for name in likes if name not in self.items]
        if unknown:
            raise ValueError(f"no items of the training: {', '.join(map(repr, unknown))}")
        seen = torch.tensor([[self.items.index(name) for name in likes]], dtype=torch.int64)
        with torch.inference_mode():
            best = rank_unseen(self.network(as_vectors(seen, len(self.items))), seen, self.top)
        return [self.items[number] for number in best[0].tolist()]


def load_recommender(folder: str | Path) -> Recommender:
    """Returns the recommender that a run saved in its model/ folder.

    Raises:
        ConfigError: no run of recommender_autoencoder wrote it.
    """
    network, facts = load_sized_network(Path(folder))
    return Recommender(network, facts["items"], facts["top"])


def rank_unseen(scores: Tensor, seen: Tensor, top: int) -> Tensor:
    """Returns the numbers of the items with the highest scores that have not been seen, the best first, int64 [B, top].

    Args:
        scores: float [B, I].
        seen: int64 [B, L]; I is no item.
    """
    padded = torch.cat([scores.float(), scores.new_zeros(len(scores), 1).float()], dim=1)
    return padded.scatter(1, seen, -torch.inf)[:, :-1].topk(top, dim=1).indices
