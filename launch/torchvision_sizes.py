"""How large torchvision's classifiers are: a table, so that a plan need not import torch."""

from __future__ import annotations

from collections.abc import Sequence

from launch.model_size import ModelSize, UnknownSize

_IMAGENET_CLASSES = 1000

SIZES: dict[str, tuple[int, int]] = {
    "alexnet": (61_100_840, 4096),
    "vgg16": (138_357_544, 4096),
    "resnet18": (11_689_512, 512),
    "resnet34": (21_797_672, 512),
    "resnet50": (25_557_032, 2048),
    "resnet101": (44_549_160, 2048),
    "resnet152": (60_192_808, 2048),
    "resnext50_32x4d": (25_028_904, 2048),
    "wide_resnet50_2": (68_883_240, 2048),
    "mobilenet_v2": (3_504_872, 1280),
    "mobilenet_v3_small": (2_542_856, 1024),
    "mobilenet_v3_large": (5_483_032, 1280),
    "efficientnet_b0": (5_288_548, 1280),
    "densenet121": (7_978_856, 1024),
    "convnext_tiny": (28_589_128, 768),
    "vit_b_16": (86_567_656, 768),
    "swin_t": (28_288_354, 768),
}
"""Name -> (parameters with 1000 classes, width before the last layer). Source: torchvision 0.29 itself (a test counts them again)."""


def torchvision_size(name: str, num_labels: int | None, frozen: Sequence[str]) -> ModelSize | UnknownSize:
    """Returns the size of a classifier with its last layer for `num_labels` classes (None: for 1000, as published)."""
    if name not in SIZES:
        return UnknownSize(f"torchvision's {name} is not in the table of sizes")
    if frozen:
        return UnknownSize("what is frozen can be counted by the ranks alone")
    whole, width = SIZES[name]
    total = whole + (width + 1) * ((num_labels or _IMAGENET_CLASSES) - _IMAGENET_CLASSES)
    return ModelSize(total, total, largest_layer=total, outside_layers=0, transformer=None, origin=f"the table for torchvision's {name}")
