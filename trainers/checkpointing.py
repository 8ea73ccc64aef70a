"""Checkpoints: written beside, listed in a manifest, published by rename; read only after the manifest was verified."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from launch.config import experiment as config
from launch.config.errors import FullrankError, Problem, StateError
from launch.config.run_dir import RunDir
from trainers.engine import Engine
from trainers.manifest import FORMAT, find_newest, is_complete, is_usable, prune, publish
from trainers.tasks import Task

STATE, TENSORS = "trainer_state.json", "training_state.pt"
_FULL_BYTES = 1 << 20


@dataclass
class Progress:
    """Where a training is: everything of it that is not weights, optimizer or random state.

    Args:
        step: optimizer steps done.
        best: best value of the evaluation metric so far, with the step it was reached at.
    """

    step: int = 0
    samples_consumed: int = 0
    best: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0


class Checkpoints:
    """Saves and restores the state of one run."""

    def __init__(self, run: RunDir, options: config.Checkpoint, engine: Engine, task: Task, experiment: Mapping[str, Any]) -> None:
        self._run, self._options, self._engine, self._task, self._experiment = run, options, engine, task, experiment
        self._writer: threading.Thread | None = None
        self._failure: OSError | None = None
        self._failures_in_a_row = 0

    def save(self, model: nn.Module, optimizer: Any, schedule: Any, progress: Progress) -> None:
        """Publishes checkpoint-<step>; training waits only for the copy to host memory if `background`. Every rank must call this.

        Raises:
            FullrankError: two saves in a row failed (a full disk, say); the older checkpoints are still there.
        """
        ranks = self._engine.gather_objects(_random_state(self._engine.device))
        if not self._engine.world.is_main:
            return
        self.wait()
        path = self._run.checkpoints / f"checkpoint-{progress.step}"
        if is_complete(path):
            return
        module = self._engine.unwrap(model)
        scaler = self._engine.accelerator.scaler
        tensors = {
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "random": ranks,
        }
        state = asdict(progress) | {
            "format": FORMAT,
            "world_size": self._engine.world.world_size,
            "threads": torch.get_num_threads(),
            "experiment": dict(self._experiment),
        }
        weights = dict(module.state_dict())
        if not self._options.background:
            self._write(path, module, weights, tensors, state)
            self.wait()
            return
        self._writer = threading.Thread(target=self._write, args=(path, module, _copied(weights), _copied(tensors), state), name="checkpoint")
        self._writer.start()

    def wait(self) -> None:
        """Returns when no save is under way; reports a failed one.

        Raises:
            FullrankError: it was the second failure in a row.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        failure, self._failure = self._failure, None
        if failure is None:
            return
        what = f"a checkpoint could not be written: {failure.strerror or failure} ({failure.filename or self._run.checkpoints})"
        if self._failures_in_a_row >= 2:
            raise FullrankError(Problem(what, fix="make room, or give another --run-dir; older checkpoints are untouched"))
        print(f"warning: {what}; training goes on, and stops if the next one fails too", file=sys.stderr)

    def find_newest(self) -> Path | None:
        """Returns the newest checkpoint whose manifest holds; damaged ones are set aside with a warning. Rank 0 only."""
        return find_newest(self._run)

    def find_step(self, step: int) -> Path | None:
        """Returns the checkpoint of a step if it is there and whole; a damaged one is set aside with a warning. Rank 0 only."""
        path = self._run.checkpoints / f"checkpoint-{step}"
        return path if is_complete(path) and is_usable(path) else None

    def restore(self, path: Path, model: nn.Module, optimizer: Any, schedule: Any) -> Progress:
        """Puts everything back and returns where training was. Every rank must call this, as the last thing before training.

        Raises:
            StateError: it belongs to another experiment, or to a newer format.
        """
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        if state["format"] > FORMAT:
            raise StateError(
                Problem(f"was written in format {state['format']}, and this fullrank reads up to {FORMAT}", where=str(path), fix="update fullrank")
            )
        _refuse_other_training(state["experiment"], self._experiment, path)
        self.load_weights(path, model)
        tensors = torch.load(path / TENSORS, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(tensors["optimizer"])
        schedule.load_state_dict(tensors["schedule"])
        if self._engine.accelerator.scaler and tensors["scaler"]:
            self._engine.accelerator.scaler.load_state_dict(tensors["scaler"])
        if state["world_size"] == self._engine.world.world_size:
            torch.set_num_threads(state["threads"])  # sums depend on it: the same numbers need the same count
            _restore_random_state(tensors["random"][self._engine.world.rank], self._engine.device)
        return Progress(**{name: state[name] for name in Progress.__dataclass_fields__})

    def load_weights(self, path: Path, model: nn.Module) -> None:
        """Replaces the model's weights by a checkpoint's."""
        from safetensors.torch import load_model

        load_model(self._engine.unwrap(model), path / "model.safetensors")

    def _write(self, path: Path, module: nn.Module, weights: dict[str, Any], tensors: dict[str, Any], state: dict[str, Any]) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            self._task.save(module, temporary, weights)
            torch.save(tensors, temporary / TENSORS)
            (temporary / STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")
            publish(temporary, path, {"step": state["step"], "world_size": state["world_size"]})
            prune(self._run, self._options.keep, state["best_step"] if self._options.keep_best else None)
            self._failures_in_a_row = 0
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError about positions
            is_full = shutil.disk_usage(self._run.path).free < _FULL_BYTES
            shutil.rmtree(temporary, ignore_errors=True)
            known = error if isinstance(error, OSError) else OSError(str(error))
            self._failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) if is_full else known
            self._failures_in_a_row += 1


MAY_CHANGE = (
    "name",
    "data.num_workers",
    "train.duration",
    "train.micro_batch_size",
    "train.precision",
    "evaluate",
    "checkpoint",
    "tracking",
    "model.compile",
    "model.gradient_checkpointing",
)
"""Keys that may differ between attempts of one run; any other would make it another training."""


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (key, before, now) for every differing value that may not differ between attempts."""
    for name in sorted({*before, *now}):
        key, old, new = f"{prefix}{name}", before.get(name), now.get(name)
        if key in MAY_CHANGE or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed_keys(old, new, f"{key}.")
        else:
            yield key, old, new


def _refuse_other_training(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    problems = [
        Problem(
            f"is {new!r} now and was {old!r} when {path.name} was written: going on would be another training",
            where=str(path),
            key=key,
            fix="a new run for the new value",
        )
        for key, old, new in changed_keys(before, now)
    ]
    if problems:
        raise StateError(*problems)


def _copied(value: Any, copies: dict[tuple[int, torch.Size], torch.Tensor] | None = None) -> Any:
    """Returns a deep copy in host memory; tensors that share memory (tied weights) share it in the copy too."""
    copies = {} if copies is None else copies
    if isinstance(value, torch.Tensor):
        return copies.setdefault((value.data_ptr(), value.shape), value.detach().to("cpu", copy=True))
    if isinstance(value, Mapping):
        return {key: _copied(item, copies) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, copies) for item in value)
    return value


def _random_state(device: torch.device) -> dict[str, Any]:
    """Returns every generator's state as types that `weights_only` reads."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
