"""MobileNetV2 under torchvision's heads for segmentation and detection: light enough for CPUs, and its ImageNet weights are easily had."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import MultiScaleRoIAlign


class MobileNetFcn(nn.Module):
    """float32 [B, 3, H, W] -> logits [B, num_classes, H, W], from maps of a sixteenth of the edges."""

    def __init__(self, num_classes: int, width: float = 1.0, dropout: float = 0.1) -> None:
        super().__init__()
        self.backbone = mobilenet_v2(width_mult=width).features
        for module in self.backbone[14:].modules():  # the last stage sees as far without halving the maps (Chen et al., arXiv:1706.05587)
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation, module.padding = ((1, 1), (1, 1)) if module.stride == (2, 2) else ((2, 2), (2, 2))
                module.stride = (1, 1)
        self.classifier = FCNHead(self.backbone[-1].out_channels, num_classes)
        self.classifier[3].p = dropout

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns logits."""
        return functional.interpolate(self.classifier(self.backbone(pixels)), pixels.shape[-2:], mode="bilinear", align_corners=False)


class MobileNetFasterRcnn(FasterRCNN):
    """Faster R-CNN on a feature pyramid of MobileNetV2 at 1/8, 1/16, 1/32 and 1/64 of the edges.

    Args:
        num_classes: with the background, number 0.
        pyramid: channels of each level.
        representation: width of the two layers that look at a proposal.
        options: what torchvision's FasterRCNN takes beside.
    """

    def __init__(
        self,
        num_classes: int,
        width: float = 1.0,
        pyramid: int = 128,
        representation: int = 512,
        min_size: int = 320,
        max_size: int = 640,
        **options: Any,
    ) -> None:
        features = mobilenet_v2(width_mult=width).features
        levels = {6: "0", 13: "1", 18: "2"}
        backbone = BackboneWithFPN(
            features, {str(layer): name for layer, name in levels.items()}, [features[layer].out_channels for layer in levels], pyramid
        )
        pool = MultiScaleRoIAlign(list(levels.values()), output_size=7, sampling_ratio=2)
        super().__init__(
            backbone,
            min_size=min_size,
            max_size=max_size,
            rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,), (256,)), ((0.5, 1.0, 2.0),) * 4),
            box_roi_pool=pool,
            box_head=TwoMLPHead(pyramid * 7 * 7, representation),
            box_predictor=FastRCNNPredictor(representation, num_classes),
            **options,
        )
