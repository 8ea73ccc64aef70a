"""BERT's masking: which tokens of a row are guessed, and what stands in their place; drawn by (seed, split, epoch, row)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from trainers.texts.tokens import NO_LABEL, TokenDataset

Ids = NDArray[np.int64]
SHARE_MASKED, SHARE_RANDOM = 0.8, 0.1
"""Of the tokens that are guessed; the rest stays as it is (Devlin et al., arXiv:1810.04805, section 3.1)."""


@dataclass(frozen=True)
class Recipe:
    """How rows are masked.

    Args:
        vocabulary: how many tokens there are; a random one is any of them.
        untouched: tokens that are never guessed: those of the tokenizer's own.
        stream: keeps the draws of one split apart from another's.
    """

    probability: float
    whole_words: bool
    mask_token_id: int
    vocabulary: int
    untouched: frozenset[int]
    seed: int
    stream: int


class MaskedRows(Dataset[dict[str, Any]]):
    """Rows with some tokens hidden, by (epoch, index): the same on any number of ranks and workers, and another time each epoch."""

    def __init__(self, rows: TokenDataset, recipe: Recipe) -> None:
        self.rows, self.recipe = rows, recipe

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        row, recipe = self.rows[key], self.recipe
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([recipe.seed, recipe.stream, *key])))
        ids, targets = mask(np.asarray(row["input_ids"], np.int64), row.get("words"), recipe, random)
        return {name: values for name, values in row.items() if name != "words"} | {"input_ids": ids, "targets": targets}


def mask(ids: Ids, words: Any, recipe: Recipe, random: np.random.Generator) -> tuple[Ids, Ids]:
    """Returns the row as the model sees it, and what it has to guess, int64 [T] both.

    Args:
        words: the number of each token's word in its text, -1 outside; None: every token is a word.
    """
    maskable = ~np.isin(ids, list(recipe.untouched))
    units = _units(maskable, words if recipe.whole_words else None)
    chosen = _choose(units, int(maskable.sum()), recipe.probability, random)
    targets = np.where(chosen, ids, NO_LABEL)
    drawn = random.random(len(ids))
    seen = np.where(chosen & (drawn < SHARE_MASKED), recipe.mask_token_id, ids)
    is_random = chosen & (drawn >= SHARE_MASKED) & (drawn < SHARE_MASKED + SHARE_RANDOM)
    return np.where(is_random, random.integers(recipe.vocabulary, size=len(ids)), seen), targets


def _units(maskable: NDArray[np.bool_], words: Any) -> Ids:
    """Returns for each token the number of what is hidden together with it, from 0; -1 where nothing may be hidden."""
    begins = np.ones(len(maskable), bool)
    if words is not None:
        begins[1:] = (np.diff(np.asarray(words)) != 0) | ~maskable[:-1]
    units = np.full(len(maskable), -1, np.int64)
    units[maskable] = np.cumsum(begins[maskable]) - 1
    return units


def _choose(units: Ids, num_maskable: int, probability: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Returns which tokens are guessed: units in random order as long as they fit into the share, and at least one."""
    if not num_maskable:
        return np.zeros(len(units), bool)
    sizes = np.bincount(units[units >= 0])
    order = random.permutation(len(sizes))
    fits = np.cumsum(sizes[order]) <= max(1, round(probability * num_maskable))
    fits[0] = True
    return np.isin(units, order[fits])
