"""Thaws frozen parameters in the middle of a training, as train.unfreeze_at says."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from trainers.checkpoints.random_states import random_states, restore_random_states
from trainers.engine import Engine
from trainers.models.batch_norm import find_batch_norms
from trainers.optimizers import set_training_mode
from trainers.warm_up import settle_reduction_order

if TYPE_CHECKING:
    from trainers.loop import Training


@dataclass(frozen=True)
class Thaw:
    """Parameters, by name, that are trained from the step after `step` on."""

    step: int
    names: tuple[str, ...]


@dataclass
class Thawing:
    """What is still to be thawed, the first first; empty where everything that is ever trained is trained from the start."""

    left: list[Thaw] = field(default_factory=list)

    @property
    def names(self) -> frozenset[str]:
        """The parameters that are frozen now and will be trained: the optimizer holds them from the start, and skips them until then."""
        return frozenset(name for thaw in self.left for name in thaw.names)


def plan_thawing(model: nn.Module, experiment: Experiment, engine: Engine, steps_per_epoch: int, total_steps: int) -> Thawing:
    """Returns what is thawed when, of a model whose parameters have been frozen.

    Raises:
        ConfigError: a pattern that matches no frozen parameter, a step that never comes, or an engine that cannot thaw.
    """
    wanted, problems = experiment.train.unfreeze_at, []
    if wanted and not engine.can_thaw:
        what = f"{engine.describe()} divides at the start what is trained then"
        problems.append(Problem(what, key="train.unfreeze_at", fix="--strategy ddp or fsdp2, which thaw; or train.unfreeze_at={}"))
    frozen = _freezable(model, experiment)
    thaws = []
    for when, patterns in sorted((duration.in_steps(steps_per_epoch), patterns) for duration, patterns in wanted.items()):
        if when >= total_steps:
            problems.append(Problem(f"step {when} never comes: training has {total_steps}", key="train.unfreeze_at"))
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in frozen):
                allowed = "names like " + ", ".join(frozen[:: max(1, len(frozen) // 3)][:4]) if frozen else "nothing: model.freeze freezes no more"
                problems.append(Problem(f"{pattern!r} matches nothing that is frozen until then", key="train.unfreeze_at", allowed=allowed))
        names = [name for name in frozen if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        frozen = [name for name in frozen if name not in names]
        thaws.append(Thaw(when, tuple(names)))
    if problems:
        raise ConfigError(*problems)
    return Thawing(thaws)


def thaw_due(training: Training) -> None:
    """Thaws what this step thaws, or an earlier one that a resumed training has behind it. Every rank must call this, between two steps.

    The pass that settles the order of DDP's sums draws random numbers, and those of the training are as before afterwards: a run
    that is resumed behind a thaw goes on like one that was never stopped.
    """
    engine, left = training.engine, training.thawing.left
    while left and left[0].step <= training.progress.step:
        thaw = left.pop(0)
        parameters = dict(engine.unwrap(training.model).named_parameters())
        thawed = [parameters[name] for name in thaw.names]
        states = random_states(engine.device)
        training.model = engine.thaw(training.model, thawed)
        settle_reduction_order(engine, training.task, training.model, training.micro_batch_size)
        restore_random_states(states, engine.device)
        set_training_mode(training.model)
        training.console.say(f"step {training.progress.step}: {len(thaw.names)} more parameter tensors are trained ({thaw.names[0]}, ...)")


@contextmanager
def all_thawed(model: nn.Module, thawing: Thawing) -> Iterator[None]:
    """Everything that will ever be trained is, in this context: what must fit into memory later is tried now."""
    waiting = [parameter for name, parameter in model.named_parameters() if name in thawing.names]
    for parameter in waiting:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in waiting:
            parameter.requires_grad_(False)


def _freezable(model: nn.Module, experiment: Experiment) -> list[str]:
    """Returns the names that model.freeze has frozen; BatchNorm that model.batch_norm freezes stays so."""
    kept = {id(p) for layer in find_batch_norms(model).values() for p in layer.parameters()} if experiment.model.batch_norm == "frozen" else set()
    return [
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
        and id(parameter) not in kept
        and any(fnmatch.fnmatchcase(name, pattern) for pattern in experiment.model.freeze)
    ]
