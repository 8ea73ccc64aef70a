"""How large torchvision's networks are: a table, so that a plan need not import torch."""

from __future__ import annotations

from collections.abc import Sequence

from launch.sizes.model_size import ModelSize, UnknownSize

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


MARKERS: dict[str, tuple[int, int, int]] = {
    "fcn_resnet50": (32_946_240, 513, 21),
    "fcn_resnet101": (51_938_368, 513, 21),
    "deeplabv3_resnet50": (39_633_472, 257, 21),
    "deeplabv3_resnet101": (58_625_600, 257, 21),
    "deeplabv3_mobilenet_v3_large": (11_020_080, 257, 21),
    "lraspp_mobilenet_v3_large": (3_217_968, 170, 21),
    "fasterrcnn_resnet50_fpn": (41_294_036, 5_125, 90),
    "fasterrcnn_resnet50_fpn_v2": (43_191_764, 5_125, 90),
    "fasterrcnn_mobilenet_v3_large_fpn": (18_925_104, 5_125, 90),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (18_925_104, 5_125, 90),
}
"""Name -> (parameters beside what each category has, parameters a category, categories as published), of networks that mark pictures.

Without an auxiliary head; detectors with their background, and with frozen BatchNorm, whose numbers are no parameters. Source: as above.
"""


def torchvision_size(name: str, num_labels: int | None, frozen: Sequence[str]) -> ModelSize | UnknownSize:
    """Returns the size of a network with its last layer for `num_labels` classes (None: as published)."""
    if name not in SIZES and name not in MARKERS:
        return UnknownSize(f"torchvision's {name} is not in the table of sizes")
    if frozen:
        return UnknownSize("what is frozen can be counted by the ranks alone")
    if name in MARKERS:
        body, category, published = MARKERS[name]
        total = body + category * (num_labels or published)
    else:
        whole, width = SIZES[name]
        total = whole + (width + 1) * ((num_labels or _IMAGENET_CLASSES) - _IMAGENET_CLASSES)
    return ModelSize(total, total, largest_layer=total, outside_layers=0, transformer=None, origin=f"the table for torchvision's {name}")
