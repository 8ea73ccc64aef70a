"""Throw-away passes before the first step: DDP settles how it sums, and the micro-batch is proved to fit."""

from __future__ import annotations

import gc
import resource
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from launch.config.resolve import BatchArithmetic, divisors, resolve_batches
from trainers.engine import Engine
from trainers.loader import move_batch
from trainers.optimizers import set_training_mode
from trainers.tasks import Task


def settle_reduction_order(engine: Engine, task: Task, model: nn.Module, num_samples: int) -> None:
    """Makes one forward and backward pass, and drops what came of it. Every rank must call this at every start.

    DDP arranges its buckets anew after its first backward pass (Reducer::rebuild_buckets in torch's reducer.cpp). From three ranks on
    another arrangement is another order of summing, so the first step after a resume would differ in its last bits from the same step
    of a run that was never stopped. With this pass no step is a first one. `find_unused_parameters` would keep the buckets as they
    are too, at the price of a walk through the graph in every step.

    It draws random numbers: set or restore their states afterwards.
    """
    if isinstance(model, DistributedDataParallel):
        count = task.num_samples["train"]
        throw_away_pass(engine, task, model, [number % count for number in range(num_samples)])


def fit_micro_batch(engine: Engine, task: Task, model: nn.Module, arithmetic: BatchArithmetic) -> BatchArithmetic:
    """Returns the arithmetic with the largest micro-batch, at most the one given, whose longest samples fit into every rank's memory.

    Every rank must call this. The ranks talk only between the passes, so that one that runs out of memory leaves no other waiting;
    engines that divide talk inside them, and have had their pass (trainers/rehearsal.py). An optimizer of two moments a parameter is
    allowed for. It draws random numbers.
    """
    if engine.divides_state or not can_run_out_of_memory(engine):
        return arithmetic
    smaller = [size for size in divisors(arithmetic.global_batch_size // arithmetic.world_size) if size <= arithmetic.micro_batch_size]
    for size in reversed(smaller):
        fits = not engine.sum_over_ranks([float(_runs_out_of_memory(engine, task, model, longest_samples(task, size)))])[0]
        if fits:
            return resolve_batches(arithmetic.global_batch_size, arithmetic.world_size, size)
    return arithmetic  # not even one sample fits: the first step says so


def can_run_out_of_memory(engine: Engine) -> bool:
    """Returns whether memory that is missing is an error that can be met: on a GPU, or under `ulimit -v`. Elsewhere the system kills."""
    return engine.device.type == "cuda" or resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory is missing; torch has a class for it on GPUs alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def longest_samples(task: Task, num_samples: int) -> list[int]:
    """Returns the numbers of the costliest training samples."""
    lengths, count = task.lengths("train"), task.num_samples["train"]
    order = np.argsort(-np.asarray(lengths), kind="stable") if lengths is not None else np.arange(count)
    return [int(order[number % count]) for number in range(num_samples)]


def throw_away_pass(engine: Engine, task: Task, model: nn.Module, indices: Sequence[int]) -> None:
    """Makes a forward and a backward pass over these samples; gradients and buffers are as before."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    set_training_mode(model)
    samples = task.dataset("train")
    try:
        batch = task.collate([samples[0, index] for index in indices])
        loss_sum, _ = task.train_loss(model, move_batch(batch, engine.device), 0.0)
        engine.backward(loss_sum, 1.0)
    finally:
        engine.unwrap(model).zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])


def _runs_out_of_memory(engine: Engine, task: Task, model: nn.Module, indices: Sequence[int]) -> bool:
    """Makes a pass that no other rank takes part in."""
    moments: list[torch.Tensor] = []
    try:
        moments += [torch.empty_like(parameter) for parameter in model.parameters() if parameter.requires_grad for _ in range(2)]
        with model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext():
            throw_away_pass(engine, task, model, indices)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return True
    finally:
        moments.clear()
        gc.collect()
        if engine.device.type == "cuda":
            torch.cuda.empty_cache()
    return False
