"""Frozen means cached: what a frozen body makes of each sample is computed once and kept on disk, and epochs train the head alone."""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from launch.config.experiment import Experiment
from launch.config.prepared import prepared_dir
from launch.config.sources import cache_root
from trainers.engine import Engine
from trainers.feature_seam import FEATURES, NoSeamError, Seam, attach_head, compute_features, find_seam
from trainers.loader import build_evaluation_loader, move_batch
from trainers.sampler import Indices, evaluation_batches
from trainers.stopping import StopChecks, StopRequests
from trainers.tasks import Batch, Sample, SampleKey, Task
from trainers.tasks.classification import Classification

FORMAT_VERSION = 1
"""Raised whenever kept features of an older fullrank would be read wrongly."""

BLOCK_SIZE = 64
"""Samples that the body sees at once, on any number of ranks: the last bits of a sum depend on the shape of the batch."""

MAX_FILES = 64
"""Of one split. A kill loses at most one file's work a rank."""

SMALLEST_SHARE_LEFT = 0.5
"""Of the free room on the disk, which the features may take half of."""


def use_cached_features(engine: Engine, task: Task, model: nn.Module, experiment: Experiment, stops: StopRequests) -> tuple[Task, list[str]]:
    """Returns the task as the head sees it if its body stands still, else the task itself; and a line that says which. Every rank must call this.

    The samples of the task that comes back are features; what it saves and shows is the whole model's. `model` can compute both.

    Raises:
        StopAgreed: on every rank, if one was asked to stop meanwhile; the features computed so far are kept.
    """
    if not experiment.model.freeze or experiment.model.cache_features == "never":
        return task, []
    started = time.perf_counter()
    try:
        seam = _agreed_seam(engine, task, model, experiment)
        folder, num_computed = _compute(engine, cast("Classification", task), model, experiment, seam, stops)
    except NoSeamError as reason:
        model.train()
        return task, [f"features are not cached: {reason}"]
    attach_head(model, seam.head)
    size = " x ".join(map(str, seam.features.shape[1:]))
    done = f"computed in {time.perf_counter() - started:.1f} s" if num_computed else "found"
    what = f"the frozen body's features ({size} a sample) {done}, kept in {folder}"
    return cast("Task", FeatureTask(task, folder, seam.head)), [
        f"{what}: {', '.join(seam.head)} trains on them alone (model.cache_features=never: not)"
    ]


class FeatureTask:
    """A task whose samples are features; everything else is the task's own."""

    def __init__(self, task: Task, folder: Path, head: Sequence[str]) -> None:
        self._task, self._folder, self._head = task, folder, head
        self._of_head = copy.copy(cast("Any", task))
        self._of_head.logits = lambda model, batch: model(**{FEATURES: batch[FEATURES]}).float()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build_model(self) -> nn.Module:
        model = self._task.build_model()
        attach_head(model, self._head)
        return model

    def dataset(self, split: str) -> FeatureDataset:
        return FeatureDataset(self._folder / split)

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


class FeatureDataset(Dataset[Sample]):
    """`features` and `labels` (one) of each sample of a split, by (epoch, index), from memory-mapped files."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self._files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        self._place = {int(index): (number, row) for number, file in enumerate(self._files) for row, index in enumerate(file["indices"].tolist())}

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, key: SampleKey) -> Sample:
        number, row = self._place[key[1]]
        return {name: self._files[number][name][row] for name in (FEATURES, "labels")}


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
    if not isinstance(task, Classification) or experiment.task.kind == "own":
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


def _compute(engine: Engine, task: Classification, model: nn.Module, experiment: Experiment, seam: Seam, stops: StopRequests) -> tuple[Path, int]:
    """Returns the folder of all samples' features, and how many files of them were not there yet. Every rank must call this.

    Each rank computes a share of the files that are missing; one that is there is whole, because it is renamed when it is.

    Raises:
        NoSeamError: on every rank, if one cannot see what another wrote.
        StopAgreed: on every rank, if one was asked to stop meanwhile.
    """
    whole = cast("Task", task)
    folder = engine.from_main(cache_root() / "features" / fingerprint(engine, task, model, experiment, seam))
    pieces = {path: batches for split in whole.num_samples for path, batches in _pieces(whole, folder / split, split).items()}
    missing = engine.from_main([path for path in pieces if not path.is_file()])
    mine = missing[engine.world.rank :: engine.world.world_size]
    checks = StopChecks(stops, engine.sum_over_ranks, engine.world.is_main, "computing the features of the frozen body")
    with engine.without_gradients(), engine.accelerator.autocast():
        for number in range(len(missing[:: engine.world.world_size])):
            checks.before_batch()
            if number < len(mine):
                _write_piece(mine[number], pieces[mine[number]], engine, task, model, experiment, seam)
    engine.barrier()
    if sum(engine.gather_objects(sum(not path.is_file() for path in pieces))):
        raise NoSeamError(f"{folder} is not shared by all nodes (FULLRANK_CACHE)")
    return folder, len(missing)


def _pieces(task: Task, folder: Path, split: str) -> dict[Path, list[Indices]]:
    """Returns file -> the batches of samples that it holds, at most MAX_FILES of a split; the same on any number of ranks."""
    batches = evaluation_batches(task.num_samples[split], BLOCK_SIZE, 0, 1, task.lengths(split))
    per_file = -(-len(batches) // MAX_FILES)
    return {folder / f"{first:06d}.safetensors": batches[first : first + per_file] for first in range(0, len(batches), per_file)}


def _write_piece(path: Path, batches: Sequence[Indices], engine: Engine, task: Any, model: nn.Module, experiment: Experiment, seam: Seam) -> None:
    from safetensors.torch import save_file

    loader = build_evaluation_loader(
        task.dataset(path.parent.name), task.collate, batches, experiment.data.num_workers if len(batches) > 8 else 0, engine.device.type == "cuda"
    )
    features, labels = [], []
    for batch in loader:
        features.append(compute_features(model, seam.head, partial(task.logits, model, move_batch(batch, engine.device))).cpu())
        labels.append(batch["labels"])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    indices = torch.from_numpy(np.concatenate(list(batches)))
    save_file({FEATURES: torch.cat(features).contiguous(), "labels": torch.cat(labels), "indices": indices}, temporary)
    temporary.replace(path)


def _batch(task: Task, indices: Indices) -> dict[str, Tensor]:
    samples = task.dataset("train")
    return task.collate([samples[0, int(index)] for index in indices])


def fingerprint(engine: Engine, task: Classification, model: nn.Module, experiment: Experiment, seam: Seam) -> str:
    """Returns what tells these features from others: the body's weights and code, the prepared data, its way into the network, the arithmetic."""
    digest = hashlib.sha256()
    head = tuple(f"{name}." for name in seam.head)
    for name, tensor in model.state_dict().items():
        if not name.startswith(head):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    facts = {
        "version": FORMAT_VERSION,
        "head": seam.head,
        "code": hashlib.sha256(inspect.getsource(importlib.import_module(type(model).__module__)).encode()).hexdigest(),
        "body": repr(model),
        "data": [prepared_dir(experiment).name, task.fingerprint],
        "task": experiment.task.model_dump(mode="json"),
        "statistics": getattr(task, "statistics", None),
        "arithmetic": [engine.precision, engine.device.type, torch.__version__],
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:20]
