"""One rank that trains a small BERT for a step and writes how many bytes it holds: python rank_memory.py STRATEGY MODEL RESULT."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification

from launch.config.experiment import Experiment
from launch.config.resolve import BatchArithmetic
from launch.config.strategy import load_strategy
from trainers.engines import build_engine
from trainers.optimizers import build_optimizer
from trainers.world import read_world

EXPERIMENT = {
    "name": "memory",
    "model": {"source": "owner/model"},
    "task": {"kind": "text_classification", "text": "text", "label": "label"},
    "data": {"source": "owner/data"},
    "train": {"duration": "1 epoch", "global_batch_size": 8},
    "optimizer": {"lr": 1e-3},
}


def main(strategy: str, folder: str, result: Path) -> None:
    """Trains for a step; rank 0 writes what it holds. Every rank must call this."""
    world, experiment = read_world(), Experiment.model_validate(EXPERIMENT)
    engine = build_engine(world, load_strategy(strategy), "fp32", experiment, BatchArithmetic(8, 8 // world.world_size, 1, world.world_size))
    model, optimizer = engine.prepare(
        AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32), lambda built: build_optimizer(built, experiment.optimizer)
    )
    samples = {"input_ids": torch.ones(8 // world.world_size, 16, dtype=torch.long), "labels": torch.zeros(8 // world.world_size, dtype=torch.long)}
    with engine.accumulating(model, is_last=True):
        engine.backward(model(**samples).loss * len(samples["labels"]), 8)
    gradients = None if engine.name == "deepspeed" else [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    held = {"parameters": engine.parameter_bytes(model), "gradients": gradients and sum(bytes_of(gradient) for gradient in gradients)}
    engine.take_step(model, optimizer, None)
    held["optimizer"] = sum(bytes_of(tensor) for state in optimizer.state.values() for tensor in state.values() if torch.is_tensor(tensor))
    if engine.name == "deepspeed":
        held["optimizer"] += sum(bytes_of(master) for master in masters(engine))
    if world.is_main:
        result.write_text(json.dumps(held), encoding="utf-8")
    engine.barrier()
    engine.close()


def masters(engine: Any) -> list[torch.Tensor]:
    """Returns DeepSpeed's fp32 copies of this rank's weights."""
    zero = engine._wrapped.optimizer
    return list(zero.fp32_partitioned_groups_flat if engine.stage == 3 else zero.single_partition_of_fp32_groups)


def bytes_of(tensor: torch.Tensor) -> int:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return int(local.numel() * local.element_size())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
