"""What can be learned: one table of tasks, and what the training loop asks of each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from launch.config.experiment import Experiment

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset
    from torchmetrics import MetricCollection

    from trainers.features.computed_once import OncePerSample
    from trainers.reading.columns import Indices

Batch = Mapping[str, "Tensor"]
Sample = dict[str, Any]
SampleKey = tuple[int, int]
"""(epoch, index): what a dataset is asked for, so that a sample's own randomness can be seeded by (seed, epoch, index)."""

TASKS: dict[str, str] = {
    "text_classification": "trainers.tasks.text_classification",
    "text_regression": "trainers.tasks.text_regression",
    "glue": "trainers.tasks.glue",
    "distill": "trainers.tasks.distill",
    "multitask": "trainers.tasks.multitask",
    "ner": "trainers.tasks.ner",
    "question_answering": "trainers.tasks.question_answering",
    "image_classification": "trainers.tasks.image_classification",
    "autoencoder": "trainers.tasks.autoencoder",
    "segmentation_fcn": "trainers.tasks.segmentation_fcn",
    "detection_faster_rcnn": "trainers.tasks.detection_faster_rcnn",
    "seq2seq": "trainers.tasks.seq2seq",
    "speech_ctc": "trainers.tasks.speech_ctc",
    "masked_lm": "trainers.tasks.masked_lm",
    "causal_lm": "trainers.tasks.causal_lm",
    "recommender_autoencoder": "trainers.tasks.recommender_autoencoder",
    "own": "trainers.tasks.own",
}
"""task.kind -> its module, imported on use; each has build_task(experiment)."""


def build_task(experiment: Experiment) -> Task:
    """Returns the experiment's task with its data prepared: read, checked, tokenised once, cached for the next run.

    Every rank may call this at once: one prepares under a file lock, the others wait and read the same files; no collective.

    Raises:
        ConfigError: data or model that is not there or cannot be used, with the place of every bad row.
    """
    task: Task = importlib.import_module(TASKS[experiment.task.kind]).build_task(experiment)
    return task


class Task(Protocol):
    """A task: its samples, its model, its loss and its metrics.

    Losses and counts are local to the rank and summed, never averaged: the loop divides once, globally.
    """

    num_samples: dict[str, int]
    """Samples of each split that exists: train, and validation and test where there are any."""

    label_names: list[str]
    """Class names, in the order of their numbers; empty where a sample has no class."""

    notes: list[str]
    """What a person should know about the data, a line each: rows left out or skipped."""

    def lengths(self, split: str) -> Sequence[int] | Indices | None:
        """Returns the cost of each sample (tokens), by index; None if all cost the same."""

    def dataset(self, split: str) -> Dataset[Sample]:
        """Returns a map-style dataset; its key is (epoch, index). It pickles to DataLoader workers."""

    def collate(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Returns one batch, padded to its longest sample, on the CPU. Pickles to DataLoader workers."""

    def build_model(self) -> nn.Module:
        """Returns the model in float32 on the CPU, new weights seeded by the experiment, equal on every rank.

        Sets dropout and gradient checkpointing; freezing and compiling are the loop's.

        Raises:
            ConfigError: the source cannot be loaded.
        """

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """Returns the summed loss and what it covers: (float32 [], int64 []), local to this rank."""

    def batch_count(self, batch: Batch) -> int:
        """Returns the count that train_loss will give, known without the model."""

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        """Returns (real tokens, computed tokens); their quotient is the share that is not padding."""

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        """Returns the loss of each sample, float32 [B], how much they cover, and the arguments of metrics.update; no gradients are needed.

        A task whose loss belongs to no sample returns the sum, float32 []; then no worst samples are shown.
        """

    def build_metrics(self) -> MetricCollection:
        """Returns fresh metrics that sum over ranks: those of the options' metrics() less loss.

        What computes to more than one number (confusion_matrix) goes to <run>/evaluations/<split>.json as nested lists.
        """

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        """Returns one sample as Markdown for the report: a text, its special characters escaped, or a picture.

        A picture is written into `folder`, which may not be there yet, and linked to by `<name of folder>/<file>`.
        """

    def save(self, model: nn.Module, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes the model with these whole weights in its library's own format, as model.safetensors and what belongs to it.

        Only one rank calls this; perhaps on a thread beside training, so nothing of `model` but its configuration is read.
        """


@runtime_checkable
class Attaches(Protocol):
    """What a task may have beside: it computes less of a network than the network would by itself, which build_model sees to."""

    def attach(self, network: nn.Module) -> None:
        """Does the same to a network that build_model did not build, before it is judged."""


@runtime_checkable
class Illustrates(Protocol):
    """What a task may have beside: it shows what the model makes of a few samples (boxes, masks, words it wrote)."""

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns Markdown for the report, under headings of level 2; every rank calls this, with the same samples and in the same order.

        Args:
            model: in evaluation mode; gradients are off.
            place: moves a batch to the model's device.
            folder: where pictures go, named <split>-*.png and linked to as <name of folder>/<file>; None on ranks that write nothing.
        """


@runtime_checkable
class Draws(Protocol):
    """What a task may have beside: not every set of its samples is a batch, so it draws them itself; the same on any number of ranks."""

    def global_batches(self, epoch: int) -> list[Indices]:
        """Returns the samples of each optimizer step of an epoch: train.global_batch_size each, the last one the remainder."""

    def evaluation_batches(self, split: str, batch_size: int) -> list[Indices]:
        """Returns the batches of an evaluation, at most so large; every sample of the split comes exactly once."""


@runtime_checkable
class Precomputes(Protocol):
    """What a task may have beside: its loss needs numbers of each training sample that another network computes, once."""

    def precompute(self, once: OncePerSample) -> list[str]:
        """Computes them before the first step, and returns what a person should know of them, a line each. Every rank must call this.

        Raises:
            ConfigError: there is no such network.
            StopAgreed: on every rank, if one was asked to stop meanwhile.
        """
