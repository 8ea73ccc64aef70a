"""The ResNets for CIFAR-10 (He et al., arXiv:1512.03385, section 4.2): 6n + 2 layers, 16, 32 and 64 channels."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional


class CifarResNet(nn.Module):
    """float32 [B, 3, 32, 32] -> [B, num_classes]; depth 20, 32, 44, 56 or 110."""

    def __init__(self, depth: int = 20, num_classes: int = 10) -> None:
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a depth of {depth} is not 6n + 2 (20, 32, 44, 56, 110)")
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        num_blocks = (depth - 2) // 6
        self.layer1 = _stage(16, 16, num_blocks)
        self.layer2 = _stage(16, 32, num_blocks)
        self.layer3 = _stage(32, 64, num_blocks)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns logits."""
        features = functional.relu(self.bn1(self.conv1(pixels)))
        features = self.layer3(self.layer2(self.layer1(features)))
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """Two convolutions and a shortcut without weights (option A: every second pixel, zeros for the new channels)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride = channels_out // channels_in
        self.new_channels = channels_out - channels_in
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, features: Tensor) -> Tensor:
        changed = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(features)))))
        half = self.new_channels // 2
        shortcut = functional.pad(features[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))
        return functional.relu(changed + shortcut)


def _stage(channels_in: int, channels_out: int, num_blocks: int) -> nn.Sequential:
    blocks = [_Block(channels_in if number == 0 else channels_out, channels_out) for number in range(num_blocks)]
    return nn.Sequential(OrderedDict((str(number), block) for number, block in enumerate(blocks)))
