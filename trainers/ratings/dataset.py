"""People as samples: what the network sees of their likes, and what it has to find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainers.images.dataset import sample_seed
from trainers.texts.tokens import ROWS_PER_CHUNK, TokenDataset, write_tokens

ITEMS = "items"


def write_people(path: Path, people: Sequence[Sequence[int]]) -> int:
    """Writes the numbers of everybody's likes as an Arrow stream, and returns how many people that were."""
    return write_tokens(path, _chunks(people))


class PeopleDataset(Dataset[dict[str, Any]]):
    """People of one split, by (epoch, index): `seen` and `wanted`, numbers of items.

    In training a share of the likes is hidden, another one each epoch, and all are wanted; in an evaluation a share is held out, always the
    same, and that is wanted. Both are functions of (seed, epoch, index).
    """

    def __init__(self, path: Path, num_samples: int, seed: int, hidden: float, is_training: bool) -> None:
        self._likes, self._seed, self._hidden, self._is_training = TokenDataset(path, num_samples), seed, hidden, is_training

    def __len__(self) -> int:
        return len(self._likes)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        likes = torch.from_numpy(self._likes[0, index][ITEMS].astype(np.int64))
        source = torch.Generator().manual_seed(sample_seed(self._seed, epoch if self._is_training else 0, index))
        if self._is_training:
            return {"seen": likes[torch.rand(len(likes), generator=source) >= self._hidden], "wanted": likes}
        order = torch.randperm(len(likes), generator=source)
        num_held_out = min(len(likes) - 1, max(1, round(self._hidden * len(likes))))
        return {"seen": likes[order[num_held_out:]], "wanted": likes[order[:num_held_out]]}


class PadItems:
    """Collates people into `seen` and `wanted`, int64 [B, L]; behind a person's own stands `num_items`, which is no item."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        pad = torch.nn.utils.rnn.pad_sequence
        return {name: pad([sample[name] for sample in samples], True, self.num_items) for name in ("seen", "wanted")}


def as_vectors(items: Tensor, num_items: int) -> Tensor:
    """Returns 1 where an item stands and 0 elsewhere: int64 [B, L] -> float32 [B, num_items]."""
    vectors = torch.zeros(len(items), num_items + 1, device=items.device)
    return vectors.scatter_(1, items, 1.0)[:, :num_items]


def _chunks(people: Sequence[Sequence[int]]) -> Iterator[dict[str, list[Any]]]:
    for start in range(0, len(people), ROWS_PER_CHUNK):
        chunk = list(people[start : start + ROWS_PER_CHUNK])
        yield {ITEMS: chunk, "label": [0] * len(chunk)}
