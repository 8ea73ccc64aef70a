"""Rows of tokens collated into a batch, with the token that is to be guessed at each place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.texts.packing import positions_in_segments
from trainers.texts.tokens import NO_LABEL


@dataclass(frozen=True)
class PadRows:
    """Collates rows into one batch, padded to the longest.

    A row has `input_ids`; `segments`, the number of each token's text from 1 (absent: all are of one); `targets`, unless the next token
    of the same text is what is guessed (`is_causal`).

    Returns:
        input_ids, segments (0: padding), position_ids (in its text) and targets (NO_LABEL: not guessed), int64 [B, T].
    """

    pad_token_id: int
    is_causal: bool

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        shape = len(rows), max(len(row["input_ids"]) for row in rows)
        ids, segments, targets = np.full(shape, self.pad_token_id, np.int64), np.zeros(shape, np.int64), np.full(shape, NO_LABEL, np.int64)
        for number, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[number, :length] = row["input_ids"]
            segments[number, :length] = row.get("segments", 1)
            if not self.is_causal:
                targets[number, :length] = row["targets"]
        if self.is_causal:
            follows = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
            targets[:, :-1] = np.where(follows, ids[:, 1:], NO_LABEL)
        batch = {"input_ids": ids, "segments": segments, "position_ids": positions_in_segments(segments), "targets": targets}
        return {name: torch.from_numpy(values) for name, values in batch.items()}
