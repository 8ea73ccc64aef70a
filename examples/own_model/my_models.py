"""A network of one's own: any torch.nn.Module that turns pictures, float32 [B, 3, H, W], into logits, [B, classes]."""

from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, width: int = 32, num_classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.body(pixels))
