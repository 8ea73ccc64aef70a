"""One throw-away pass, after which every step of DDP sums gradients in the same order."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

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
    if not isinstance(model, DistributedDataParallel):
        return
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    set_training_mode(model)
    samples, count = task.dataset("train"), task.num_samples["train"]
    batch = task.collate([samples[0, number % count] for number in range(num_samples)])
    loss_sum, _ = task.train_loss(model, move_batch(batch, engine.device), 0.0)
    engine.backward(loss_sum, 1.0)
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
