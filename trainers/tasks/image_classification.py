"""Image classification: one label for a picture, by any classifier of torchvision or the hub, or a class of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from trainers.images.networks import Classifier, build_network, describe_network, save_network
from trainers.images.samples import PictureSamples, prepared
from trainers.images.transforms import normalised
from trainers.tasks import Batch
from trainers.tasks.classification import Classification


def build_task(experiment: Experiment) -> ImageClassificationTask:
    """Returns the task with its pictures looked at; ranks that call this together share one preparation."""
    return ImageClassificationTask(experiment, *prepared(experiment))


class ImageClassificationTask(PictureSamples, Classification):
    """See trainers.tasks.Task for what each method promises."""

    def build_model(self) -> nn.Module:
        network, notes = build_network(self._experiment.model, self.label_names, self.options.channels, self._experiment.seed)
        self.notes += notes
        return network

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns float32 [B, C].

        Raises:
            ConfigError: the network gives something else.
        """
        output = model(normalised(batch["pixels"], *self.statistics))
        logits = getattr(output, "logits", output)
        wanted = (len(batch["labels"]), len(self.label_names))
        if not isinstance(logits, Tensor) or logits.shape != wanted:
            given = f"a tensor of {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            what = f"the network gives {given} for a batch, and {wanted} is wanted: (pictures, classes)"
            raise ConfigError(Problem(what, key="model.head", fix="model.head=NAME of its last layer"))
        return logits.float()

    def save(self, model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        save_network(model, self._classifier(model), folder, weights)

    def _classifier(self, model: nn.Module) -> Classifier:
        options, wanted = self.options, self._experiment.model
        library, architecture = describe_network(wanted, model)
        mean, std = self.statistics
        return Classifier(
            library, architecture, self.label_names, options.size, options.resize, mean, std, wanted.head, dict(wanted.kwargs), options.channels
        )
