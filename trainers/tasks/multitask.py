"""Several tasks of texts over one shared encoder, each with its data, its head and its metrics; every optimizer step is of one of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.tasks import Multitask
from launch.config.tasks.multitask import Part
from trainers.data_facts import point_to_facts
from trainers.mixing import mixed_batches, offsets, sampling_shares, separate_batches
from trainers.models.multihead import Head, MultiHeadNetwork, OnePart, build_multihead
from trainers.reading.columns import Indices
from trainers.tasks import Batch, Illustrates, Sample, SampleKey, Task
from trainers.tasks import build_task as build_part
from trainers.tasks.ner import NerTask
from trainers.tasks.texts import TextsTask
from trainers.texts.entities import tag_names

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

PART = "part"
"""Of a sample: the name of its task. A batch is of one: its keys are TASK/NAME."""


def build_task(experiment: Experiment) -> MultitaskTask:
    """Returns the task with the data of all its tasks prepared; ranks that call this together share one preparation.

    Raises:
        ConfigError: as each of the tasks, with the task's name before the key.
    """
    options = experiment.task
    assert isinstance(options, Multitask)
    parts: dict[str, Task] = {}
    for name, part in options.tasks.items():
        with _within(name, part):
            alone = experiment.model_copy(update={"task": part.task, "data": part.data or experiment.data})
            parts[name] = build_part(alone)
    task = MultitaskTask(experiment, parts)
    point_to_facts(experiment, task)
    return task


class MultitaskTask:
    """See trainers.tasks.Task for what each method promises. Samples are numbered through all tasks, in their order."""

    def __init__(self, experiment: Experiment, parts: Mapping[str, Task]) -> None:
        assert isinstance(experiment.task, Multitask)
        self._experiment, self._options, self._parts = experiment, experiment.task, dict(parts)
        first = next(iter(parts.values()))  # all have the same splits
        self._sizes = {split: [part.num_samples[split] for part in parts.values()] for split in first.num_samples}
        self.num_samples = {split: sum(sizes) for split, sizes in self._sizes.items()}
        self.label_names: list[str] = []
        self.fingerprint = hashlib.sha256(" ".join(str(getattr(part, "fingerprint", None)) for part in parts.values()).encode()).hexdigest()[:16]
        self.collate = CollatePart({name: part.collate for name, part in parts.items()})
        self.notes = [self._describe_sampling(), *(f"{name}: {note}" for name, part in parts.items() for note in part.notes)]

    def lengths(self, split: str) -> Indices:
        return np.concatenate(self._lengths(split))

    def dataset(self, split: str) -> JoinedSamples:
        return JoinedSamples({name: part.dataset(split) for name, part in self._parts.items()}, offsets(self._sizes[split]))

    def global_batches(self, epoch: int) -> list[Indices]:
        train = self._experiment.train
        lengths = self._lengths("train") if train.group_by_length else None
        return mixed_batches(self._sizes["train"], self._options.temperature, train.global_batch_size, self._experiment.seed, epoch, lengths)

    def evaluation_batches(self, split: str, batch_size: int) -> list[Indices]:
        return separate_batches(self._sizes[split], batch_size, self._lengths(split))

    def build_model(self) -> nn.Module:
        heads = {name: _head(part) for name, part in self._parts.items()}
        pad_token_id = next(cast("Any", part).collate.pad_token_id for part in self._parts.values())
        return build_multihead(self._experiment.model, heads, self._experiment.seed, pad_token_id)

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        name, own = _taken_apart(batch)
        return self._parts[name].train_loss(cast("nn.Module", OnePart(model, name)), own, label_smoothing)

    def batch_count(self, batch: Batch) -> int:
        name, own = _taken_apart(batch)
        return self._parts[name].batch_count(own)

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        name, own = _taken_apart(batch)
        return self._parts[name].batch_size_stats(own)

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        name, own = _taken_apart(batch)
        losses, count, arguments = self._parts[name].evaluate_batch(cast("nn.Module", OnePart(model, name)), own)
        return losses, count, (name, losses.sum(), count, *arguments)

    def build_metrics(self) -> MetricCollection:
        leading = {name: next(iter(part.task.metrics() or ())) for name, part in self._options.tasks.items()}
        return cast("MetricCollection", MetricsOfParts({name: part.build_metrics() for name, part in self._parts.items()}, leading))

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        shown = []
        for name, part in self._parts.items():
            if isinstance(part, Illustrates):
                text = part.illustrate(cast("nn.Module", OnePart(model, name)), split, place, folder)
                shown.append(text.replace("\n## ", f"\n## {name}: ").replace("## ", f"## {name}: ", 1) if text.startswith("## ") else text)
        return "\n\n".join(text for text in shown if text)

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        name, own = _place_of(index, offsets(self._sizes[split]), list(self._parts))
        return f"{name}: {self._parts[name].show_sample(split, own, folder)}"

    def save(self, model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        network: MultiHeadNetwork = model
        network.save_pretrained(folder, weights)
        next(iter(cast("Any", self._parts).values()))._tokenizer.save_pretrained(folder)

    def _lengths(self, split: str) -> list[Indices]:
        return [np.asarray(part.lengths(split)) for part in self._parts.values()]

    def _describe_sampling(self) -> str:
        shares = sampling_shares(self._sizes["train"], self._options.temperature)
        words = (f"{name} {share:.0%} ({size} samples)" for name, share, size in zip(self._parts, shares, self._sizes["train"], strict=True))
        return f"optimizer steps of each task: {', '.join(words)}"


class MetricsOfParts:
    """The metrics of several tasks, each fed by its own batches: theirs under TASK_NAME, TASK_loss, and score, the mean of the leading ones.

    Args:
        leading: task -> the metric that counts in the score.
    """

    def __init__(self, parts: Mapping[str, MetricCollection], leading: Mapping[str, str]) -> None:
        from torchmetrics import MeanMetric, MetricCollection

        # Without compute_groups, which a rank that saw no batch of a task would form otherwise than the others: they talk metric by metric.
        self._parts = {name: MetricCollection(dict(part.items()), compute_groups=False) for name, part in parts.items()}
        self._losses, self._leading = {name: MeanMetric() for name in parts}, leading

    def to(self, device: torch.device) -> MetricsOfParts:
        for metrics in (*self._parts.values(), *self._losses.values()):
            metrics.to(device)
        return self

    def update(self, part: str, loss_sum: Tensor, count: Tensor, *arguments: Any) -> None:
        """Adds a batch of one task."""
        self._losses[part].update(loss_sum / count.clamp(min=1), weight=count)
        self._parts[part].update(*arguments)

    def compute(self) -> dict[str, Tensor]:
        """Returns all of them, summed over ranks. Every rank must call this."""
        import warnings

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*was called before the.*update")  # a rank may have had no batch of a task
            values = {f"{part}_{name}": value for part, metrics in self._parts.items() for name, value in metrics.compute().items()}
            losses = {f"{part}_loss": loss.compute() for part, loss in self._losses.items()}
        leading = [values[f"{part}_{name}"].double() for part, name in self._leading.items()]
        return values | losses | {"score": torch.stack(leading).mean()}


@dataclass(frozen=True)
class JoinedSamples(Dataset[Sample]):
    """The samples of all tasks, one task behind the other, by (epoch, index); each knows its task."""

    parts: Mapping[str, Any]
    firsts: list[int]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values())

    def __getitem__(self, key: SampleKey) -> Sample:
        name, own = _place_of(key[1], self.firsts, list(self.parts))
        return {PART: name, **self.parts[name][key[0], own]}


@dataclass(frozen=True)
class CollatePart:
    """Collates samples of one task by its own rule; of samples of several, as throw-away passes bring them, those of the first one's task."""

    parts: Mapping[str, Callable[[list[Sample]], dict[str, Tensor]]]

    def __call__(self, samples: list[Sample]) -> dict[str, Tensor]:
        name = samples[0][PART]
        own = [{key: value for key, value in sample.items() if key != PART} for sample in samples if sample[PART] == name]
        return {f"{name}/{key}": tensor for key, tensor in self.parts[name](own).items()}


def _taken_apart(batch: Batch) -> tuple[str, Batch]:
    """Returns the task that a batch is of, and the batch as that task knows it."""
    name = next(iter(batch)).partition("/")[0]
    return name, {key.partition("/")[2]: tensor for key, tensor in batch.items()}


def _place_of(index: int, firsts: list[int], names: list[str]) -> tuple[str, int]:
    """Returns a sample's task, and its number there."""
    number = int(np.searchsorted(firsts, index, side="right")) - 1
    return names[number], index - firsts[number]


def _head(task: Task) -> Head:
    if isinstance(task, NerTask):
        return Head(None, tag_names(task.types))
    assert isinstance(task, TextsTask), task
    return Head(task.pooling or "mean", task.label_names)


@contextmanager
def _within(name: str, part: Part) -> Iterator[None]:
    """Names the task in the keys of its problems, and in what they say to type."""
    sections = "task|data" if part.data is not None else "task"

    def moved(text: str | None) -> str | None:
        return text and re.sub(rf"(?<![\w./])({sections})\.(?=[a-z])", rf"task.tasks.{name}.\1.", text)

    try:
        yield
    except ConfigError as error:
        raise ConfigError(*(replace(problem, key=moved(problem.key), fix=moved(problem.fix)) for problem in error.problems)) from error
