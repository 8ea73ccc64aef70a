"""Numbers that a network makes of each sample, computed once and kept on disk: shared out over the ranks, whole or not there."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from launch.config.sources import cache_root
from trainers.engine import Engine
from trainers.loader import build_evaluation_loader, move_batch
from trainers.sampler import Indices, evaluation_batches
from trainers.stopping import StopChecks, StopRequests
from trainers.tasks import Batch, Sample, SampleKey

FORMAT_VERSION = 1
"""Raised whenever kept numbers of an older fullrank would be read wrongly."""

BLOCK_SIZE = 64
"""Samples that the network sees at once, on any number of ranks: the last bits of a sum depend on the shape of the batch."""

MAX_FILES = 64
"""Of one split. A kill loses at most one file's work a rank."""

_INDICES = "indices"


class NotSharedError(Exception):
    """A rank cannot see what another wrote; names the folder."""


class Samples(Protocol):
    """What is asked of a task here."""

    num_samples: dict[str, int]

    def lengths(self, split: str) -> Sequence[int] | Indices | None: ...
    def dataset(self, split: str) -> Dataset[Sample]: ...
    def collate(self, samples: list[Sample]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class OncePerSample:
    """How this training computes what it keeps: its ranks, and their wish to stop.

    Args:
        num_workers: processes a rank that prepare batches ahead.
    """

    engine: Engine
    stops: StopRequests
    num_workers: int

    def compute(self, what: str, name: str, task: Samples, splits: Sequence[str], of_batch: Callable[[Batch], Mapping[str, Tensor]]) -> Kept:
        """Returns what `of_batch` makes of every sample, computed where it was not there yet. Every rank must call this.

        Args:
            what: in words, for a stop that comes meanwhile.
            name: of the folder in the cache: another one for whatever changes a bit of the numbers (fingerprint).
            of_batch: takes a batch on the device, returns tensors [B, ...] by name; no gradients.

        Raises:
            NotSharedError: on every rank, if one cannot see what another wrote.
            StopAgreed: on every rank, if one was asked to stop meanwhile; what is computed stays.
        """
        engine, world = self.engine, self.engine.world
        folder = engine.from_main(cache_root() / name)
        pieces = {path: batches for split in splits for path, batches in _pieces(task, folder / split, split).items()}
        missing = engine.from_main([path for path in pieces if not path.is_file()])
        mine = missing[world.rank :: world.world_size]
        checks = StopChecks(self.stops, engine.sum_over_ranks, world.is_main, what)
        with engine.without_gradients(), engine.accelerator.autocast():
            for number in range(len(missing[:: world.world_size])):
                checks.before_batch()
                if number < len(mine):
                    self._write(mine[number], pieces[mine[number]], task, of_batch)
        engine.barrier()
        if sum(engine.gather_objects(sum(not path.is_file() for path in pieces))):
            raise NotSharedError(f"{folder} is not shared by all nodes (FULLRANK_CACHE)")
        return Kept(folder, len(missing))

    def _write(self, path: Path, batches: Sequence[Indices], task: Samples, of_batch: Callable[[Batch], Mapping[str, Tensor]]) -> None:
        """Writes one file, which is renamed when it is whole."""
        from safetensors.torch import save_file

        device = self.engine.device
        num_workers = self.num_workers if len(batches) > 8 else 0
        loader = build_evaluation_loader(task.dataset(path.parent.name), task.collate, batches, num_workers, device.type == "cuda")
        made = [{name: tensor.cpu() for name, tensor in of_batch(move_batch(batch, device)).items()} for batch in loader]
        tensors = {name: torch.cat([numbers[name] for numbers in made]).contiguous() for name in made[0]}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        save_file(tensors | {_INDICES: torch.from_numpy(np.concatenate(list(batches)))}, temporary)
        temporary.replace(path)


@dataclass(frozen=True)
class Kept:
    """Where the numbers lie, and how many files of them were not there before."""

    folder: Path
    num_computed: int

    def split(self, name: str) -> KeptNumbers:
        return KeptNumbers(self.folder / name)


class KeptNumbers(Dataset[Sample]):
    """What was computed of each sample of a split, by (epoch, index); maps the files on first use, so that it pickles as a path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[dict[str, Tensor]] | None = None
        self._place: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        self._mapped()
        return len(self._place)

    def __getitem__(self, key: SampleKey) -> Sample:
        files = self._mapped()
        number, row = self._place[key[1]]
        return {name: tensor[row] for name, tensor in files[number].items() if name != _INDICES}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": None, "_place": {}}

    def _mapped(self) -> list[dict[str, Tensor]]:
        if self._files is None:
            from safetensors.torch import load_file

            self._files = [load_file(path) for path in sorted(self._folder.glob("*.safetensors"))]
            for number, file in enumerate(self._files):
                self._place |= {int(index): (number, row) for row, index in enumerate(file[_INDICES].tolist())}
        return self._files


def fingerprint(engine: Engine, model: nn.Module, facts: Mapping[str, Any], left_out: Sequence[str] = ()) -> str:
    """Returns what tells these numbers from others: the network's weights and code, the arithmetic, and `facts` (JSON) of the samples.

    Args:
        left_out: layers whose weights do not take part.
    """
    digest = hashlib.sha256()
    others = tuple(f"{name}." for name in left_out)
    for name, tensor in model.state_dict().items():
        if not name.startswith(others):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    of_network = {
        "version": FORMAT_VERSION,
        "code": hashlib.sha256(inspect.getsource(importlib.import_module(type(model).__module__)).encode()).hexdigest(),
        "network": repr(model),
        "arithmetic": [engine.precision, engine.device.type, torch.__version__],
    }
    digest.update(json.dumps({**of_network, **facts}, sort_keys=True).encode())
    return digest.hexdigest()[:20]


def _pieces(task: Samples, folder: Path, split: str) -> dict[Path, list[Indices]]:
    """Returns file -> the batches of samples that it holds, at most MAX_FILES of a split; the same on any number of ranks."""
    batches = evaluation_batches(task.num_samples[split], BLOCK_SIZE, 0, 1, task.lengths(split))
    per_file = -(-len(batches) // MAX_FILES)
    return {folder / f"{first:06d}.safetensors": batches[first : first + per_file] for first in range(0, len(batches), per_file)}
