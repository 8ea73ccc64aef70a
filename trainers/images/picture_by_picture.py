"""A Faster R-CNN that looks at each picture by itself, so that a picture's loss depends on nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops.misc import FrozenBatchNorm2d

from launch.config.errors import ConfigError, Problem

Target = dict[str, Tensor]
Detections = dict[str, Tensor]
"""boxes, float32 [N, 4], labels, int64 [N], scores, float32 [N], the highest first."""


class PictureByPicture(nn.Module):
    """A network of torchvision's GeneralizedRCNN; its parameters keep their names.

    torchvision pads the pictures of a batch to one size and averages its four losses over what it has sampled of all of them, so a picture
    would count by its company. Here each goes through alone, and what is sampled of it is drawn from a seed of its own: the same losses
    however a batch is split. BatchNorm is frozen, since one picture has no statistics.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, GeneralizedRCNN):
            what = f"{type(network).__name__} is no Faster R-CNN of torchvision's kind"
            raise ConfigError(Problem(what, key="model.class", allowed="a subclass of torchvision.models.detection.FasterRCNN"))
        self.transform: Any = network.transform
        self.backbone: Any = with_frozen_batch_norm(network.backbone)
        self.rpn: Any = with_frozen_batch_norm(network.rpn)
        self.roi_heads: Any = with_frozen_batch_norm(network.roi_heads)
        # torchvision computes places in the type of these outputs, and bfloat16 would round them to whole pixels from 128 on.
        heads: list[Any] = [self.rpn.head, self.roi_heads.box_predictor]
        for head in heads:
            head.register_forward_hook(give_float32)

    def forward(
        self, pictures: Sequence[Tensor], targets: Sequence[Target] | None = None, seeds: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Detections]]:
        """Returns the loss of each picture, float32 [B], zeros without targets; and in evaluation mode what is detected in each.

        Args:
            pictures: float32 [3, H, W] each, from 0 to 1.
            targets: boxes, float32 [N, 4], corners in pixels, and labels, int64 [N], from 1, of each picture.
            seeds: of what is sampled of each picture.
        """
        losses, detections = [], []
        for number, picture in enumerate(pictures):
            loss, found = self._look(picture, targets[number] if targets else None, seeds[number] if seeds else 0)
            losses.append(loss)
            detections += found
        return torch.stack(losses), detections

    def _look(self, picture: Tensor, target: Target | None, seed: int) -> tuple[Tensor, list[Detections]]:
        with torch.random.fork_rng(devices=[picture.device] if picture.device.type == "cuda" else []):
            torch.manual_seed(seed)
            images, targets = self.transform([picture], None if target is None else [dict(target)])
            features = self.backbone(images.tensors)
            features = {"0": features} if isinstance(features, Tensor) else features
            loss, found = torch.zeros((), device=picture.device), list[Detections]()
            if targets is not None:
                loss = self._loss(images, features, targets)
        if not self.training:
            proposals, _ = self.rpn(images, features, None)
            found, _ = self.roi_heads(features, proposals, images.image_sizes, None)
            found = self.transform.postprocess(found, images.image_sizes, [picture.shape[-2:]])
        return loss, found

    def _loss(self, images: Any, features: dict[str, Tensor], targets: list[Target]) -> Tensor:
        """Returns the sum of the network's four losses, as torchvision's reference adds them up; in evaluation mode too."""
        was_training = self.training
        self.rpn.training = self.roi_heads.training = True  # of these two alone: what they hold is in evaluation mode as it was
        proposals, of_proposals = self.rpn(images, features, targets)
        _, of_boxes = self.roi_heads(features, proposals, images.image_sizes, targets)
        self.rpn.training = self.roi_heads.training = was_training
        return torch.stack([*of_proposals.values(), *of_boxes.values()]).sum().float()


def set_sizes(network: PictureByPicture, size: int | None, max_size: int | None) -> PictureByPicture:
    """Returns the network with the edges that it scales pictures to, None: its own."""
    if size is not None:
        network.transform.min_size = (size,)
    if max_size is not None:
        network.transform.max_size = max_size
    return network


def give_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Forward hook: returns the output, tensors in tuples and lists, in float32."""
    return output.float() if isinstance(output, Tensor) else type(output)(give_float32(module, inputs, part) for part in output)


def with_frozen_batch_norm(module: nn.Module) -> nn.Module:
    """Returns the module with torchvision's FrozenBatchNorm2d, of the same numbers, in place of its BatchNorm layers."""
    if isinstance(module, nn.BatchNorm2d):
        frozen = FrozenBatchNorm2d(module.num_features, module.eps)
        state = module.state_dict()
        frozen.load_state_dict({name: state[name] for name in frozen.state_dict()})
        return frozen
    for name, child in module.named_children():
        setattr(module, name, with_frozen_batch_norm(child))
    return module
