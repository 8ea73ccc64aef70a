"""Image classification: one label for a picture, by any classifier of torchvision or the hub, or a class of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from trainers.images.networks import Classifier, build_network, describe_network, save_network
from trainers.images.samples import PictureSamples, prepared
from trainers.images.transforms import normalised
from trainers.reports.explaining import can_be_explained, class_activation, with_gradients
from trainers.reports.explanations import explained_indices, explained_pictures
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
        logits = _logits_in(model(normalised(batch["pixels"], *self.statistics)))
        wanted = (len(batch["labels"]), len(self.label_names))
        if not isinstance(logits, Tensor) or logits.shape != wanted:
            given = f"a tensor of {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            what = f"the network gives {given} for a batch, and {wanted} is wanted: (pictures, classes)"
            raise ConfigError(Problem(what, key="model.head", fix="model.head=NAME of its last layer"))
        return logits.float()

    def save(self, model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        save_network(model, self._classifier(model), folder, weights)

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns which places spoke for the predicted class in a few pictures; nothing for networks without maps, or where ranks divide them."""
        if folder is None or not can_be_explained(model):
            return ""
        samples = []
        with with_gradients(model):
            for index in explained_indices(self.num_samples[split]):
                batch = place(self.collate([self.dataset(split)[0, index]]))
                with torch.no_grad():
                    predicted = int(self.logits(model, batch)[0].argmax())
                pixels = normalised(batch["pixels"], *self.statistics)
                places = class_activation(model, lambda given: _logits_in(model(given)), pixels, predicted)
                if places is None:
                    return ""
                names = {"predicted": self.label_names[predicted], "label": self.label_names[int(batch["labels"])]}
                samples.append({"index": index, "pixels": batch["pixels"][0], "places": places, **names})
        return explained_pictures(split, folder, samples)

    def _classifier(self, model: nn.Module) -> Classifier:
        options, wanted = self.options, self._experiment.model
        library, architecture = describe_network(wanted, model)
        mean, std = self.statistics
        return Classifier(
            library, architecture, self.label_names, options.size, options.resize, mean, std, wanted.head, dict(wanted.kwargs), options.channels
        )


def _logits_in(output: Any) -> Any:
    """Returns what a network of torchvision gives, or the part of it that one of transformers calls so."""
    return getattr(output, "logits", output)
