"""Uses a trained segmenter or detector: three lines of Python, a picture goes in, what is where in it comes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from launch.config.tasks import DetectionFasterRcnn, SegmentationFcn
from trainers.images.marking_networks import load_marking_network
from trainers.images.picture_by_picture import PictureByPicture, set_sizes
from trainers.images.pictures import LONGEST_EDGE, decode_picture, inspect_picture
from trainers.images.transforms import normalised
from trainers.models.weights import read_weights


class Found(NamedTuple):
    """An object of a picture; the box is left, top, right and bottom in pixels."""

    name: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Segmenter:
    """A picture goes in, the category of each pixel comes out."""

    network: nn.Module
    options: SegmentationFcn
    label_names: list[str]
    mean: list[float]
    std: list[float]

    def __call__(self, picture: str | Path) -> dict[str, float]:
        """Returns category -> share of a picture file's pixels, the largest first.

        Raises:
            ValueError: the file is no picture.
        """
        counts = torch.bincount(self.mask(picture).flatten(), minlength=len(self.label_names))
        return {self.label_names[n]: float(counts[n] / counts.sum()) for n in counts.argsort(descending=True).tolist() if counts[n]}

    def mask(self, picture: str | Path) -> Tensor:
        """Returns the number of each pixel's category, int64 [H, W], of the whole picture, scaled to the square that the network knows."""
        pixels = _read(picture, self.options.channels)
        square = functional.interpolate(pixels[None].float(), (self.options.size, self.options.size), mode="bilinear", antialias=True)
        with torch.inference_mode():
            output = self.network(normalised(square.round().byte(), self.mean, self.std))
        logits = output["out"] if isinstance(output, dict) else output
        return functional.interpolate(logits.float(), pixels.shape[-2:], mode="bilinear")[0].argmax(dim=0)


@dataclass(frozen=True)
class Detector:
    """A picture goes in, its objects come out."""

    network: PictureByPicture
    options: DetectionFasterRcnn
    label_names: list[str]

    def __call__(self, picture: str | Path) -> list[Found]:
        """Returns the objects of a picture file with the score that the task asks for, the surest first.

        Raises:
            ValueError: the file is no picture.
        """
        with torch.inference_mode():
            _, (found,) = self.network([_read(picture, 3).float() / 255])
        rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
        return [Found(self.label_names[label - 1], score, tuple(box)) for label, score, box in rows if score >= self.options.min_score]


def load_segmenter(folder: str | Path) -> Segmenter:
    """Returns the segmenter that a run saved in its model/ folder.

    Raises:
        ConfigError: no such run wrote it.
    """
    recipe, facts = load_marking_network(Path(folder))
    network = recipe.build()
    network.load_state_dict(read_weights(Path(folder) / "model.safetensors"))
    return Segmenter(network.eval(), SegmentationFcn.model_validate(facts["task"]), facts["label_names"], facts["mean"], facts["std"])


def load_detector(folder: str | Path) -> Detector:
    """Returns the detector that a run saved in its model/ folder.

    Raises:
        ConfigError: no such run wrote it.
    """
    recipe, facts = load_marking_network(Path(folder))
    options = DetectionFasterRcnn.model_validate(facts["task"])
    network = set_sizes(PictureByPicture(recipe.build()), options.size, options.max_size)
    network.load_state_dict(read_weights(Path(folder) / "model.safetensors"))
    return Detector(network.eval(), options, facts["label_names"])


def _read(picture: str | Path, channels: int) -> Tensor:
    """Returns uint8 [C, H, W].

    Raises:
        ValueError: the file is no picture.
    """
    encoded = Path(picture).read_bytes()
    finding = inspect_picture(encoded, 1, channels)
    if finding.problem:
        raise ValueError(f"{picture}: {finding.problem}")
    return decode_picture(encoded, channels, LONGEST_EDGE, finding.needs_pillow)
