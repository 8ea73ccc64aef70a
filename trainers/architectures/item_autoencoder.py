"""An autoencoder over items (Mult-DAE: Liang et al., arXiv:1802.05814)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ItemAutoencoder(nn.Module):
    """float32 [B, num_items], 1 for what a person likes -> logits [B, num_items] of what else it may be."""

    def __init__(self, num_items: int, width: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = nn.Linear(num_items, width)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(width, num_items)

    def forward(self, likes: Tensor) -> Tensor:
        """Returns logits."""
        code = torch.tanh(self.encoder(functional.normalize(likes, dim=1)))
        logits: Tensor = self.decoder(self.dropout(code))
        return logits
