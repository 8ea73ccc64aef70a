"""Names in tagged words: which tags there are, which spans they mark, and how spans are judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

OUTSIDE = "O"


class Span(NamedTuple):
    """A name: words [start, end), and the number of its type."""

    start: int
    end: int
    kind: int


def tag_names(types: Sequence[str]) -> list[str]:
    """Returns the tags of these types, in the order of their numbers: O, B-first, I-first, B-second, ..."""
    return [OUTSIDE, *(f"{part}-{name}" for name in types for part in "BI")]


def find_spans(tags: Iterable[int]) -> list[Span]:
    """Returns the names that the tags (numbers of tag_names) mark.

    A name begins with B, or with an I that continues no name of its type, as the CoNLL-2000 evaluation (and seqeval) read it.
    """
    spans: list[Span] = []
    start, kind = 0, -1
    for place, tag in enumerate([*tags, 0]):
        found, begins = (tag - 1) // 2, tag % 2 == 1
        if kind >= 0 and (tag == 0 or begins or found != kind):
            spans.append(Span(start, place, kind))
            kind = -1
        if tag and kind < 0:
            start, kind = place, found
    return spans


def confusion(true: Sequence[Span], predicted: Sequence[Span], num_types: int) -> Tensor:
    """Returns counts, int64 [T + 1, T + 1]: rows are the types of true names, columns of predicted ones with exactly the same words.

    The last row counts predictions where no name has these words, the last column names that nothing was predicted for.
    """
    counts = torch.zeros(num_types + 1, num_types + 1, dtype=torch.int64)
    truth, guesses = ({(span.start, span.end): span.kind for span in spans} for spans in (true, predicted))
    for words in truth.keys() | guesses.keys():
        counts[truth.get(words, num_types), guesses.get(words, num_types)] += 1
    return counts


class EntityMetric(Metric):
    """Sums confusion() over all sentences; what is computed of it is for the subclasses."""

    counts: Tensor

    def __init__(self, num_types: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(num_types + 1, num_types + 1, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, counts: Tensor) -> None:
        """Adds the counts of a batch, int64 [T + 1, T + 1]."""
        self.counts = self.counts + counts

    def _hits_guesses_names(self) -> tuple[Tensor, Tensor, Tensor]:
        inner = self.counts[:-1, :-1]
        return inner.diagonal().sum(), self.counts[:, :-1].sum(), self.counts[:-1].sum()


class EntityConfusion(EntityMetric):
    def compute(self) -> Tensor:
        """Returns the summed counts."""
        return self.counts


class EntityPrecision(EntityMetric):
    def compute(self) -> Tensor:
        """Returns the share of predicted names that are right, words and type; 0 if nothing was predicted."""
        hits, guesses, _ = self._hits_guesses_names()
        return hits / guesses.clamp(min=1)


class EntityRecall(EntityMetric):
    def compute(self) -> Tensor:
        """Returns the share of names that were found, words and type."""
        hits, _, names = self._hits_guesses_names()
        return hits / names.clamp(min=1)


class EntityF1(EntityMetric):
    def compute(self) -> Tensor:
        """Returns the harmonic mean of precision and recall over all names of all types (micro average)."""
        hits, guesses, names = self._hits_guesses_names()
        return 2 * hits / (guesses + names).clamp(min=1)
