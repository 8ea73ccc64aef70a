"""Frozen means cached: what a frozen body makes of each sample is computed once and kept on disk, and epochs train the head alone."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from launch.config.experiment import Experiment
from launch.config.prepared import prepared_dir
from launch.config.sources import cache_root
from trainers.engine import Engine
from trainers.features.computed_once import Kept, KeptNumbers, NotSharedError, OncePerSample, fingerprint
from trainers.features.seam import FEATURES, NoSeamError, Seam, attach_head, compute_features, find_seam
from trainers.loader import move_batch
from trainers.sampler import Indices, evaluation_batches
from trainers.tasks import Batch, Precomputes, Sample, Task
from trainers.tasks.classification import Classification

SMALLEST_SHARE_LEFT = 0.5
"""Of the free room on the disk, which the features may take half of."""


def use_cached_features(once: OncePerSample, task: Task, model: nn.Module, experiment: Experiment) -> tuple[Task, list[str]]:
    """Returns the task as the head sees it if its body stands still, else the task itself; and a line that says which. Every rank must call this.

    The samples of the task that comes back are features; what it saves and shows is the whole model's. `model` can compute both.

    Raises:
        StopAgreed: on every rank, if one was asked to stop meanwhile; the features computed so far are kept.
    """
    if not experiment.model.freeze or experiment.model.cache_features == "never":
        return task, []
    started = time.perf_counter()
    try:
        seam = _agreed_seam(once.engine, task, model, experiment)
        kept = _compute(once, task, model, experiment, seam)
    except (NoSeamError, NotSharedError) as reason:
        model.train()
        return task, [f"features are not cached: {reason}"]
    attach_head(model, seam.head)
    size = " x ".join(map(str, seam.features.shape[1:]))
    done = f"computed in {time.perf_counter() - started:.1f} s" if kept.num_computed else "found"
    what = f"the frozen body's features ({size} a sample) {done}, kept in {kept.folder}"
    return cast("Task", FeatureTask(task, kept, seam.head)), [
        f"{what}: {', '.join(seam.head)} trains on them alone (model.cache_features=never: not)"
    ]


class FeatureTask:
    """A task whose samples are features; everything else is the task's own."""

    def __init__(self, task: Task, kept: Kept, head: Sequence[str]) -> None:
        self._task, self._kept, self._head = task, kept, head
        self._of_head = copy.copy(cast("Any", task))
        self._of_head.logits = lambda model, batch: model(**{FEATURES: batch[FEATURES]}).float()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build_model(self) -> nn.Module:
        model = self._task.build_model()
        attach_head(model, self._head)
        return model

    def dataset(self, split: str) -> KeptNumbers:
        return self._kept.split(split)

    def collate(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Returns features, [B, ...], and labels, [B]."""
        return {name: torch.stack([sample[name] for sample in samples]) for name in (FEATURES, "labels")}

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        losses: tuple[Tensor, Tensor] = self._of_head.train_loss(model, batch, label_smoothing)
        return losses

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
        judged: tuple[Tensor, Tensor, tuple[Any, ...]] = self._of_head.evaluate_batch(model, batch)
        return judged

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        """No token is computed again."""
        return 0, 0


def _agreed_seam(engine: Engine, task: Task, model: nn.Module, experiment: Experiment) -> Seam:
    """Returns the seam that every rank found. Every rank must call this.

    Raises:
        NoSeamError: on every rank, if one has none.
    """
    seam, reason = None, _reason_against(task, model, experiment)
    if reason is None:
        model.to(engine.device)
        batch = _batch(task, evaluation_batches(task.num_samples["train"], 4, 0, 1, task.lengths("train"))[0])
        try:
            with engine.accelerator.autocast():
                seam = find_seam(model, partial(cast("Classification", task).logits, model, move_batch(batch, engine.device)))
            reason = _reason_of_room(seam, task)
        except NoSeamError as error:
            reason = str(error)
    reason = next((other for other in engine.gather_objects(reason) if other), None)
    if reason is not None or seam is None:
        raise NoSeamError(reason)
    return seam


def _reason_against(task: Task, model: nn.Module, experiment: Experiment) -> str | None:
    """Returns why the body's features could not stand for the samples."""
    if not isinstance(task, Classification) or isinstance(task, Precomputes) or experiment.task.kind == "own":
        return f"not known of {experiment.task.kind} whether its loss needs more than logits and labels"
    if getattr(experiment.task, "is_random", False):
        return "training sees each sample changed at random (task.flip, crop, augment)"
    if experiment.train.unfreeze_at:
        return "the body thaws (train.unfreeze_at)"
    if experiment.model.lora is not None:
        return "adapters are trained inside the body (model.lora)"
    if experiment.model.compile:
        return "the whole model is compiled (model.compile)"
    if all(parameter.requires_grad for parameter in model.parameters()):
        return "nothing is frozen"
    return None


def _reason_of_room(seam: Seam, task: Task) -> str | None:
    needed = sum(task.num_samples.values()) * seam.features[0].numel() * seam.features.element_size()
    cache_root().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_root()).free
    if needed < SMALLEST_SHARE_LEFT * free:
        return None
    return f"they would take {needed / 1e9:.1f} GB, and {cache_root()} has {free / 1e9:.1f} GB left"


def _compute(once: OncePerSample, task: Task, model: nn.Module, experiment: Experiment, seam: Seam) -> Kept:
    """Returns all samples' features and labels. Every rank must call this.

    Raises:
        NotSharedError, StopAgreed: as OncePerSample.
    """
    classified = cast("Classification", task)

    def of_batch(batch: Batch) -> dict[str, Tensor]:
        return {FEATURES: compute_features(model, seam.head, partial(classified.logits, model, batch)), "labels": batch["labels"]}

    name = f"features/{_fingerprint(once.engine, classified, model, experiment, seam)}"
    return once.compute("computing the features of the frozen body", name, task, list(task.num_samples), of_batch)


def _batch(task: Task, indices: Indices) -> dict[str, Tensor]:
    samples = task.dataset("train")
    return task.collate([samples[0, int(index)] for index in indices])


def _fingerprint(engine: Engine, task: Classification, model: nn.Module, experiment: Experiment, seam: Seam) -> str:
    """Returns what tells these features from others: the body, the prepared data, its way into the network."""
    facts = {
        "head": seam.head,
        "data": [prepared_dir(experiment).name, task.fingerprint],
        "task": experiment.task.model_dump(mode="json"),
        "statistics": getattr(task, "statistics", None),
    }
    return fingerprint(engine, model, facts, left_out=seam.head)
