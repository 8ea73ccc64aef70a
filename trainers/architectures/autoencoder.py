"""A small convolutional autoencoder, and the classifier that goes on with its encoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ConvAutoencoder(nn.Module):
    """float32 [B, channels, size, size] -> the same shape, of values from 0 to 1, through a code of `code` numbers; size a multiple of 4.

    Two strided convolutions and a linear layer there, their mirror images back (Hinton and Salakhutdinov, Science 313, 2006, with convolutions).
    """

    def __init__(self, code: int = 64, width: int = 16, channels: int = 1, size: int = 28) -> None:
        super().__init__()
        edge = size // 4
        self.encoder = build_encoder(code, width, channels, size)
        self.decoder = nn.Sequential(
            nn.Linear(code, 2 * width * edge * edge),
            nn.ReLU(),
            nn.Unflatten(1, (2 * width, edge, edge)),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the reconstruction."""
        reconstruction: Tensor = self.decoder(self.encoder(pixels))
        return reconstruction


class EncoderClassifier(nn.Module):
    """The encoder of a ConvAutoencoder under a linear head: float32 [B, channels, size, size] -> logits [B, num_classes]."""

    def __init__(self, num_classes: int = 10, code: int = 64, width: int = 16, channels: int = 1, size: int = 28) -> None:
        super().__init__()
        self.encoder = build_encoder(code, width, channels, size)
        self.head = nn.Linear(code, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns logits."""
        code = self.encoder(pixels)
        logits: Tensor = self.head(functional.layer_norm(code, code.shape[1:]))  # of any scale: a reconstruction's code is far from a new head's
        return logits


def build_encoder(code: int, width: int, channels: int, size: int) -> nn.Sequential:
    """Returns float32 [B, channels, size, size] -> float32 [B, code]."""
    if size % 4:
        raise ValueError(f"a size of {size} is no multiple of 4")
    edge = size // 4
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * edge * edge, code),
        nn.ReLU(),
    )
