"""Looks at a training instead of finishing it: one batch until its loss is gone, gradients watched, steps profiled."""

from __future__ import annotations

import math

import torch

from launch.config.errors import FullrankError, Problem
from launch.config.modes import check_steps, parse_steps
from launch.config.run_dir import Cause
from trainers.loop import StepResult, Training, train_step, write_record
from trainers.optimizers import set_training_mode
from trainers.profiling import StepProfiler

GONE = 0.02
"""The loss of a batch is gone below this share of its first value."""


def watch_gradients() -> None:
    """A gradient that is not a number raises where it arises, with the line of the forward pass that it came from (several times slower)."""
    torch.autograd.set_detect_anomaly(True)


def profile_steps(training: Training, steps: str) -> None:
    """Makes the training profile some of its steps.

    Raises:
        ConfigError: it does not make them.
    """
    first, last = parse_steps(steps)
    check_steps((first, last), training.total_steps, training.progress.step)
    training.profiler = StepProfiler(training.run, training.engine, training.console, first, last)


def overfit(training: Training) -> Cause | None:
    """Trains on the first batch again and again until its loss is gone; returns why it stopped, None if it is. Every rank must call this.

    Raises:
        FullrankError: it is not; says what to look at.
    """
    training.heartbeat.note(overfits_batch=True, verdict=None)
    set_training_mode(training.model)
    training.console.start(0, training.total_steps)
    batches = next(iter(training.steps))
    losses: list[float] = []
    for step in range(1, training.total_steps + 1):
        result = train_step(training, batches)
        losses.append(training.engine.sum_over_ranks([result.loss_sum])[0] / result.global_count)
        training.progress.step = step
        training.heartbeat.beat(step)
        training.console.advance()
        is_over = is_gone(losses) or not math.isfinite(losses[-1]) or result.cause is not None
        if is_over or training.is_due(training.experiment.tracking.log_every) or step == 1:
            record = {"loss": losses[-1], "lr": result.lr, "gradient_norm": float(result.gradient_norm)}
            write_record(training, "train", step, record | {"epoch": round(1 / training.steps_per_epoch, 4)})  # no more is ever seen
        if is_over:
            break
    training.console.stop()
    if result.cause:
        return result.cause
    problem = None if is_gone(losses) else verdict(losses, result)
    said = problem.what if problem else _good_news(losses, training.experiment.train.global_batch_size)
    training.heartbeat.note(step=step, verdict=said)
    if problem:
        raise FullrankError(problem)
    training.console.say(said)
    return None


def _good_news(losses: list[float], num_samples: int) -> str:
    went = f"The loss of one batch of {num_samples} went from {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps"
    return f"overfit: yes. {went}: data, model, loss and optimizer work together"


def is_gone(losses: list[float]) -> bool:
    """Returns whether the newest loss is next to nothing beside the first."""
    return losses[-1] <= GONE * losses[0]


def verdict(losses: list[float], result: StepResult) -> Problem:
    """Returns what a loss that does not go away looks like, and what to look at."""
    what = (
        f"overfit: no. The loss of one batch went from {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps, not below {GONE * losses[0]:.2g}"
    )
    lowest = min(losses)
    if not math.isfinite(losses[-1]):
        fix = "optimizer.lr=... ten times smaller; --debug names the operation that gave the first number that is none"
    elif float(result.gradient_norm) == 0.0 or len(set(losses)) == 1:
        fix = "no gradient arrives: look at model.freeze, at the model's head, and whether the loss depends on the weights (detach, argmax)"
    elif losses[-1] > 2 * lowest:
        fix = f"it was at {lowest:.4g} and rose again: optimizer.lr=... three to ten times smaller"
    elif losses[-1] < 0.5 * losses[0]:
        fix = "it still falls: train.duration='2000 steps', or optimizer.lr=... three to ten times larger"
    else:
        fix = "optimizer.lr=... ten times larger; else look at the labels (equal inputs with different labels?) and at how the loss is computed"
    return Problem(what, key="--overfit-batch", fix=fix)
