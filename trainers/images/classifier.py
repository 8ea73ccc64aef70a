"""Uses a trained classifier: three lines of Python, whatever library its network is of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from launch.config.tasks import ImageClassification
from trainers.images.networks import Classifier, load_network, read_classifier
from trainers.images.pictures import decode_picture, inspect_picture
from trainers.images.transforms import build_evaluation_transform, normalised, shortest_edge


@dataclass(frozen=True)
class ImageClassifier:
    """A picture goes in, its class comes out."""

    network: nn.Module
    facts: Classifier

    def __call__(self, picture: str | Path) -> dict[str, float]:
        """Returns class name -> probability of a picture file, the likeliest first.

        Raises:
            ValueError: the file is no picture.
        """
        facts, encoded = self.facts, Path(picture).read_bytes()
        options = ImageClassification(kind="image_classification", size=facts.size, resize=facts.resize, channels=3 if facts.channels == 3 else 1)
        edge = shortest_edge(options)
        finding = inspect_picture(encoded, edge, facts.channels)
        if finding.problem:
            raise ValueError(f"{picture}: {finding.problem}")
        pixels = build_evaluation_transform(options)(decode_picture(encoded, facts.channels, edge, finding.needs_pillow))
        with torch.inference_mode():
            output = self.network(normalised(pixels[None], facts.mean, facts.std))
        probabilities = getattr(output, "logits", output)[0].float().softmax(-1)
        return {facts.label_names[n]: float(probabilities[n]) for n in probabilities.argsort(descending=True).tolist()}


def load_classifier(folder: str | Path) -> ImageClassifier:
    """Returns the classifier that a run saved in its model/ folder.

    Raises:
        ConfigError: no run of image_classification wrote it.
    """
    network = load_network(Path(folder))
    facts = read_classifier(Path(folder))
    assert facts is not None
    return ImageClassifier(network, facts)
