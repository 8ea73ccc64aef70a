"""Checkpoints: written beside, listed in a manifest, published by rename; read only after the manifest was verified."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from launch.config import experiment as config
from launch.config.changes import ACCEPTED_VARIABLE, PREPARED, Change, changed_data, changed_keys
from launch.config.errors import FullrankError, Problem, StateError
from launch.config.run_dir import RunDir, update_status
from trainers.averaging import NO_AVERAGE, NoAverage
from trainers.checkpoints.host_copies import HostCopies
from trainers.checkpoints.manifest import is_complete, is_usable, prune, publish
from trainers.checkpoints.named_state import group_options, join_shares
from trainers.checkpoints.random_states import random_states, restore_random_states, seed_random_states
from trainers.checkpoints.restoring import SavedWeights, refuse_other_optimizer, renew_options, restore_schedule
from trainers.data_facts import data_facts, facts_to_compare
from trainers.engine import Engine
from trainers.models.model_files import ModelFiles, WholeModel
from trainers.once import let_read
from trainers.tasks import Task

STATE, TENSORS = "trainer_state.json", "training_state.pt"
SHARES = "training_state_*.pt"
"""What the ranks above 0 write where each keeps a part of the optimizer's state."""
UNAVERAGED = "unaveraged.safetensors"
"""The weights that training goes on with, where the model's file holds their average."""
STATE_FORMAT = 2
"""Of the files named above: 2 has the optimizer's state by parameter name."""
_FULL_BYTES = 1 << 20


@dataclass
class Progress:
    """Where a training is: everything of it that is not weights, optimizer or random state.

    Args:
        step: optimizer steps done.
        best: best value of the evaluation metric so far, with the step it was reached at.
        evaluated_step: step of the last whole evaluation; a stop may have left the one of `step` for later.
    """

    step: int = 0
    samples_consumed: int = 0
    best: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    evaluated_step: int | None = None


class Weights(NamedTuple):
    """Whole weights by name: those a checkpoint offers as the model, and those training goes on with, where they differ."""

    model: dict[str, Tensor]
    unaveraged: dict[str, Tensor] = {}  # noqa: RUF012 - nobody writes into it


class Checkpoints:
    """Saves and restores the state of one run."""

    def __init__(
        self,
        run: RunDir,
        options: config.Checkpoint,
        engine: Engine,
        task: Task,
        experiment: Mapping[str, Any],
        files: ModelFiles | None = None,
        average: NoAverage = NO_AVERAGE,
    ) -> None:
        """Args: files: how weights lie in a checkpoint; None: whole, in the library's format. average: whose weights it offers as the model."""
        self._run, self._options, self._engine, self._experiment = run, options, engine, experiment
        self.files: ModelFiles = files or WholeModel(task)
        self._average = average
        self._data = data_facts(task)
        self._writer: threading.Thread | None = None
        self._failure: OSError | None = None
        self._failures_in_a_row = 0
        self._copies = HostCopies()
        self._written: dict[str, Any] = {}
        self._blocked_s = 0.0
        self.notes: list[str] = []

    def save(self, model: nn.Module, optimizer: Any, schedule: Any, progress: Progress) -> None:
        """Publishes checkpoint-<step>; training waits only for the copy to host memory if `background`. Every rank must call this.

        Raises:
            FullrankError: two saves in a row failed (a full disk, say); the older checkpoints are still there.
        """
        started = time.perf_counter()
        self.wait()
        path = self._run.checkpoints / f"checkpoint-{progress.step}"
        ranks = self._engine.gather_objects(random_states(self._engine.device))
        if self._engine.from_main(is_complete(path)):
            return
        snapshot = self._engine.snapshot(model, optimizer)
        if snapshot is None:
            return
        module = self._engine.exported(model)
        scaler = self._engine.scaler
        tensors: dict[str, Any] = {"optimizer": snapshot.optimizer}
        if self._engine.world.is_main:
            tensors |= {"schedule": schedule.state_dict(), "scaler": scaler.state_dict() if scaler else None, "random": ranks}
        state = asdict(progress) | {
            "format": STATE_FORMAT,
            "world_size": self._engine.world.world_size,
            "threads": torch.get_num_threads(),
            "experiment": dict(self._experiment),
            "data": self._data,
            "foundation": self.files.foundation,
        }
        weights = Weights(snapshot.weights)
        if self._average.is_on:
            trained = (name for name, parameter in self._engine.unwrap(model).named_parameters() if parameter.requires_grad)
            weights = Weights(self._average.whole_weights(), {name: weights.model[name] for name in trained if name in weights.model})
        if self._options.background:
            if not snapshot.is_copy:
                *taken, tensors = self._copies.take((*weights, tensors))
                weights = Weights(*taken)
            self._writer = threading.Thread(target=self._write, args=(path, module, weights, tensors, state, started), name="checkpoint")
            self._writer.start()
            self._blocked_s = time.perf_counter() - started
        else:
            self._write(path, module, weights, tensors, state, started)
            self._blocked_s = time.perf_counter() - started
            self.wait()

    def poll(self) -> None:
        """Reports a save in the background as soon as it has ended; costs nothing, and is meant for every step.

        Raises:
            FullrankError: it was the second failure in a row.
        """
        if self._writer is not None and not self._writer.is_alive():
            self.wait()

    def wait(self) -> None:
        """Returns when no save is under way; reports a failed one, and how long a whole one took (status.json: checkpoint).

        Raises:
            FullrankError: it was the second failure in a row.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._written:
            with contextlib.suppress(OSError):
                update_status(self._run, checkpoint=self._written | {"blocked_seconds": round(self._blocked_s, 3)})
            self._written = {}
        failure, self._failure = self._failure, None
        if failure is None:
            return
        what = f"a checkpoint could not be written: {failure.strerror or failure} ({failure.filename or self._run.checkpoints})"
        if self._failures_in_a_row >= 2:
            raise FullrankError(Problem(what, fix="make room, or give another --run-dir; older checkpoints are untouched"))
        print(f"warning: {what}; training goes on, and stops if the next one fails too", file=sys.stderr)

    def find_step(self, step: int) -> Path | None:
        """Returns the checkpoint of a step if it is there and whole; a damaged one is set aside with a warning. Rank 0 only."""
        path = self._run.checkpoints / f"checkpoint-{step}"
        return path if is_complete(path) and is_usable(path) else None

    def restore(self, path: Path, model: nn.Module, optimizer: Any, schedule: Any) -> Progress:
        """Puts everything back and returns where training was. Every rank must call this, as the last thing before training.

        Raises:
            StateError: it belongs to another experiment or other data, to a newer format, or to a model of other shapes.
        """
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        if state["format"] != STATE_FORMAT:
            fix = "update fullrank" if state["format"] > STATE_FORMAT else "go on with the fullrank that wrote it"
            raise StateError(Problem(f"was written in format {state['format']}, and this fullrank reads {STATE_FORMAT}", where=str(path), fix=fix))
        of_data = changed_data(*facts_to_compare(state, self._data))
        _refuse_other_foundation(state.get("foundation"), self.files.foundation, path)
        self.notes += _refuse_other_training([*changed_keys(state["experiment"], self._experiment), *of_data], path)
        self.load_weights(path, model)
        if (path / UNAVERAGED).is_file():
            self._engine.restore_weights(model, SavedWeights(path / UNAVERAGED, is_part=True))
        tensors = torch.load(path / TENSORS, map_location="cpu", weights_only=True, mmap=True)
        others = [torch.load(file, map_location="cpu", weights_only=True, mmap=True) for file in sorted(path.glob(SHARES))]
        saved = join_shares(share["optimizer"] for share in (tensors, *others))
        refuse_other_optimizer(saved, self._engine.unwrap(model), optimizer, path)
        built_with, peaks = group_options(optimizer), list(getattr(schedule, "base_lrs", ()))
        self._engine.restore_optimizer(model, optimizer, saved)
        before, now = state["experiment"], self._experiment
        has_new_options = before.get("optimizer") != now.get("optimizer")
        if has_new_options:
            renew_options(optimizer, built_with, now["optimizer"]["lr"] / before["optimizer"]["lr"], schedule)
        durations = [values.get("train", {}).get("duration") for values in (before, now)]
        is_new_curve = has_new_options or before.get("schedule") != now.get("schedule") or durations[0] != durations[1]
        restore_schedule(schedule, tensors["schedule"], is_new_curve, peaks if has_new_options else None)
        if durations[0] != durations[1]:
            self.notes.append(f"train.duration was {durations[0]} and is {durations[1]}: the learning rate follows the new length from here on")
        if self._engine.scaler and tensors["scaler"]:
            self._engine.scaler.load_state_dict(tensors["scaler"])
        self._restore_exactness(state, tensors["random"])
        return Progress(**{name: state[name] for name in Progress.__dataclass_fields__ if name in state})

    def _restore_exactness(self, state: Mapping[str, Any], random_states: Sequence[Mapping[str, Any]]) -> None:
        """Puts back what the last bits depend on: threads a rank, and random states, both of the same number of ranks."""
        world, before = self._engine.world, state["world_size"]
        if before != world.world_size:
            seed_random_states(int(self._experiment["seed"]), world.rank, state["step"])
            self.notes.append(f"{before} -> {world.world_size} processes: the same samples follow, sums and dropout differ in their bits")
            return
        if state["threads"] != torch.get_num_threads():
            self.notes.append(f"{state['threads']} threads a rank, as before, not {torch.get_num_threads()}: sums depend on their number")
            torch.set_num_threads(state["threads"])
        restore_random_states(random_states[world.rank], self._engine.device)

    def load_weights(self, path: Path, model: nn.Module) -> None:
        """Replaces the model's weights, and their average, by those that a checkpoint offers. Every rank must call this."""
        self._engine.restore_weights(model, self.files.open(path))
        self._average.take()

    def _write(self, path: Path, module: nn.Module, weights: Weights, tensors: dict[str, Any], state: dict[str, Any], started: float) -> None:
        temporary, is_main = path.with_name(f".{path.name}.tmp"), self._engine.world.is_main

        def make_room() -> None:
            if is_main:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)

        def write_files() -> None:
            if not is_main:
                torch.save(tensors, temporary / SHARES.replace("*", f"{self._engine.world.rank:05d}"))
                return
            self.files.write(module, temporary, weights.model)
            if weights.unaveraged:
                save_file({name: tensor.contiguous() for name, tensor in weights.unaveraged.items()}, temporary / UNAVERAGED)
            torch.save(tensors, temporary / TENSORS)
            (temporary / STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")

        try:
            self._together(make_room)
            self._together(write_files)
            if not is_main:
                self._failures_in_a_row = 0
                return
            let_read(temporary)
            publish(temporary, path, {"step": state["step"], "world_size": state["world_size"]})
            prune(self._run, self._options.keep, state["best_step"] if self._options.keep_best else None)
            self._failures_in_a_row = 0
            size = sum(file.stat().st_size for file in path.iterdir())
            self._written = {"step": state["step"], "seconds": round(time.perf_counter() - started, 3), "bytes": size}
        except Exception as error:  # each library reports a full disk in its own way: torch as a RuntimeError, safetensors as a SafetensorError
            is_full = "os error 28" in str(error) or shutil.disk_usage(self._run.path).free < _FULL_BYTES
            if is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            known = error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")
            self._failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) if is_full else known
            self._failures_in_a_row += 1

    def _together(self, act: Callable[[], None]) -> None:
        """Acts, and returns when every rank that takes part in saving has; what failed on one is raised on all of them."""
        failure: Exception | None = None
        try:
            act()
        except Exception as error:
            failure = error
        everywhere = self._engine.gather_saved(failure and str(failure)) if self._engine.divides_state else []
        if failure is not None:
            raise failure
        for rank, what in enumerate(everywhere):
            if what is not None:
                raise OSError(f"rank {rank}: {what}")


def _refuse_other_foundation(before: str | None, now: str | None, path: Path) -> None:
    """Raises StateError where the frozen weights that a checkpoint does not hold are others than it was written beside."""
    if before is not None and before != now:
        what = "rests on frozen weights that are not those of model.source any more: going on would be another training"
        raise StateError(Problem(what, where=str(path), key="model.source", fix="the model as it was, or a new run"))


def _refuse_other_training(changes: Sequence[Change], path: Path) -> list[str]:
    """Returns a line for each change that a person has forced.

    Raises:
        StateError: something else differs that may not.
    """
    accepted = os.environ.get(ACCEPTED_VARIABLE, "").split(",")
    problems = [
        Problem(
            f"is {change.now!r} now and was {change.before!r} when {path.name} was written: going on would be another training",
            where=str(path),
            key=change.key,
            fix="a new run for the new value, or on purpose: fullrank resume --force",
        )
        for change in changes
        if change.key not in accepted and not (PREPARED in accepted and change.key.startswith(f"{PREPARED}."))
    ]
    if problems:
        raise StateError(*problems)
    return [f"warning: changed by force since {path.name}: {change}" for change in changes]
