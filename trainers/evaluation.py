"""Judges the model on a split: every sample once, on any number of ranks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from launch.config.run_dir import RunDir, write_json
from trainers.engine import Engine
from trainers.loader import build_evaluation_loader, move_batch
from trainers.reports.worst import Judged, describe_worst, judged, worst_of
from trainers.sampler import Indices, evaluation_batches
from trainers.stopping import StopChecks, StopRequests
from trainers.tasks import Draws, Illustrates, Task


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a split gave.

    Args:
        metrics: loss (mean over the counted targets) and the task's own metrics.
        tables: what is not one number (a confusion matrix), as nested lists.
        worst: the samples with the highest losses, the worst first; empty where the task gives no loss a sample.
        sums_losses: the loss of a sample is the sum over its targets (words, pixels), of which it has more than one.
    """

    split: str
    metrics: dict[str, float]
    tables: dict[str, Any]
    num_samples: int
    seconds: float
    worst: list[Judged] = field(default_factory=list)
    sums_losses: bool = False


class Evaluator:
    """Evaluates splits of a task."""

    def __init__(self, engine: Engine, task: Task, stops: StopRequests, batch_size: int, num_workers: int) -> None:
        self._engine, self._task, self._stops, self._batch_size, self._num_workers = engine, task, stops, batch_size, num_workers

    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        """Returns the metrics of `model` on a split, equal on every rank. Every rank must call this.

        The unwrapped module runs, so ranks may have different numbers of batches.

        Raises:
            StopAgreed: on every rank, if one was asked to stop meanwhile; nothing of this evaluation stays.
        """
        started = time.perf_counter()
        engine, task, world = self._engine, self._task, self._engine.world
        module = engine.evaluated(model)
        was_training = module.training
        module.eval()
        every_batch = batches_of(task, split, self._batch_size)
        batches = every_batch[world.rank :: world.world_size]
        loader = build_evaluation_loader(
            task.dataset(split), task.collate, batches, self._num_workers if len(batches) > 8 else 0, engine.device.type == "cuda"
        )
        metrics = task.build_metrics().to(engine.device)
        loss_sum, count, worst = torch.zeros((), dtype=torch.float64), 0, list[Judged]()
        with engine.without_gradients(), engine.accelerator.autocast():
            stop_checks = StopChecks(self._stops, engine.sum_over_ranks, world.is_main, f"evaluating the {split} split")
            remaining = zip(batches, loader, strict=True)
            for _ in range(-(-len(every_batch) // world.world_size)):  # as many as the rank that has the most
                stop_checks.before_batch()
                following = next(remaining, None)
                if following is None:  # the other ranks have one more
                    if engine.divides_parameters:  # and need this rank's part of the weights for it
                        sample = task.collate([task.dataset(split)[0, 0]])
                        task.evaluate_batch(module, move_batch(sample, engine.device))
                    break
                indices, batch = following
                losses, batch_count, arguments = task.evaluate_batch(module, move_batch(batch, engine.device))
                metrics.update(*arguments)
                loss_sum, count = loss_sum + losses.double().sum().cpu(), count + int(batch_count)
                worst = worst_of([*worst, *judged(indices.tolist(), losses, arguments)])
        loss_sum_all, count_all = engine.sum_over_ranks([loss_sum, float(count)])
        values = metrics.compute()
        module.train(was_training)
        scalars = {name: float(value) for name, value in values.items() if value.ndim == 0}
        tables = {name: value.tolist() for name, value in values.items() if value.ndim > 0}
        worst = worst_of(sample for samples in engine.gather_objects(worst) for sample in samples)
        scalars = {"loss": loss_sum_all / max(count_all, 1.0), **scalars}
        num_samples, seconds = task.num_samples[split], time.perf_counter() - started
        return Evaluation(split, scalars, tables, num_samples, seconds, worst, sums_losses=count_all > num_samples)

    def illustrate(self, model: nn.Module, split: str, folder: Path) -> str:
        """Returns what the task shows of the model on a split, as Markdown; empty if it shows nothing. Every rank must call this."""
        engine, task = self._engine, self._task
        if not isinstance(task, Illustrates):
            return ""
        module = engine.evaluated(model)
        was_training = module.training
        module.eval()
        with engine.without_gradients(), engine.accelerator.autocast():
            shown = task.illustrate(module, split, lambda batch: move_batch(dict(batch), engine.device), folder if engine.world.is_main else None)
        module.train(was_training)
        return shown


def batches_of(task: Task, split: str, batch_size: int) -> list[Indices]:
    """Returns all ranks' batches of an evaluation; every sample comes exactly once."""
    if isinstance(task, Draws):
        return task.evaluation_batches(split, batch_size)
    return evaluation_batches(task.num_samples[split], batch_size, 0, 1, task.lengths(split))


def remove_pictures(run: RunDir, split: str) -> None:
    """Removes the pictures that an earlier evaluation of a split left, of weights that were the best before."""
    for old in run.figures.glob(f"{split}-*.png"):
        old.unlink()


def write_evaluation(run: RunDir, step: int, evaluation: Evaluation, task: Task, illustration: str = "") -> None:
    """Replaces <run>/evaluations/<split>.json; pictures of the worst samples go to <run>/figures. Rank 0 only."""
    run.evaluations.mkdir(exist_ok=True)
    worst = describe_worst(evaluation.worst, task, evaluation.split, run.figures)
    facts = {"step": step, "metrics": evaluation.metrics, "label_names": task.label_names, **evaluation.tables}
    facts |= {"worst": worst, "sums_losses": evaluation.sums_losses, "illustration": illustration}
    write_json(run.evaluations / f"{evaluation.split}.json", facts)
