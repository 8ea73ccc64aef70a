"""A small network for speech: convolutions over time, then recurrent layers in both directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class SpeechNetwork(nn.Module):
    """float32 [B, T, num_features] and the frames that are real, int64 [B] -> logits [B, T, num_letters].

    What stands behind the end of a recording changes nothing before it, so a sample's logits do not depend on its batch.
    """

    def __init__(self, num_features: int, num_letters: int, width: int = 128, num_recurrent: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(size, width, 5, padding=2) for size in (num_features, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.convolutions)
        self.dropout = nn.Dropout(dropout)
        between = dropout if num_recurrent > 1 else 0.0
        self.recurrent = nn.GRU(width, width, num_recurrent, batch_first=True, bidirectional=True, dropout=between)
        self.head = nn.Linear(2 * width, num_letters)

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Returns logits."""
        is_real = (torch.arange(frames.shape[1], device=frames.device) < num_frames[:, None])[..., None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            frames = self.dropout(functional.gelu(norm(convolution(frames.mT).mT))) * is_real
        packed = pack_padded_sequence(frames, num_frames.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=frames.shape[1])
        logits: Tensor = self.head(self.dropout(states))
        return logits
