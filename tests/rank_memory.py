"""One rank that trains a small BERT for a step under one strategy after the other, and writes how many bytes it holds under each.

python rank_memory.py MODEL RESULT STRATEGY:PRECISION...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification

from launch.config.experiment import Experiment, Precision
from launch.config.resolve import BatchArithmetic
from launch.config.strategy import load_strategy
from trainers.engine import Engine
from trainers.engines import build_engine
from trainers.optimizers import build_optimizer
from trainers.world import World, read_world

EXPERIMENT = {
    "name": "memory",
    "model": {"source": "owner/model"},
    "task": {"kind": "text_classification", "text": "text", "label": "label"},
    "data": {"source": "owner/data"},
    "train": {"duration": "1 epoch", "global_batch_size": 8},
    "optimizer": {"lr": 1e-3},
}


def main(folder: str, result: Path, cases: list[str]) -> None:
    """Trains for a step in every case; rank 0 writes what it holds. Every rank must call this."""
    world, held = read_world(), {}
    for case in cases:
        strategy, _, precision = case.rpartition(":")
        engine, held[case] = hold(world, folder, strategy, precision)  # type: ignore[arg-type]
        AcceleratorState._reset_state()  # of the precision; the process group stays
    if world.is_main:
        result.write_text(json.dumps(held), encoding="utf-8")
    engine.barrier()
    engine.close()


def hold(world: World, folder: str, strategy: str, precision: Precision) -> tuple[Engine, dict[str, int]]:
    """Trains for a step; returns the engine, and the bytes this rank held of each kind. Every rank must call this."""
    experiment = Experiment.model_validate(EXPERIMENT)
    micro = 8 // world.world_size
    engine = build_engine(world, load_strategy(strategy), precision, experiment, BatchArithmetic(8, micro, 1, world.world_size))
    model, optimizer = engine.prepare(
        AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32), lambda built: build_optimizer(built, experiment.optimizer)
    )
    samples = {"input_ids": torch.ones(micro, 16, dtype=torch.long), "labels": torch.zeros(micro, dtype=torch.long)}
    whole = WholeGradients(engine, model)
    with engine.accumulating(model, is_last=True):
        engine.backward(model(**samples).loss * len(samples["labels"]), 8)
    held = {"parameters": engine.parameter_bytes(model), "gradients": whole.bytes or bytes_of(gradients(engine, model))}
    engine.take_step(model, optimizer, None)
    state = [tensor for values in optimizer.state.values() for tensor in values.values() if torch.is_tensor(tensor)]
    masters = engine.own_weights(model, optimizer) if engine.name == "deepspeed" else []  # its fp32 copies of the weights
    return engine, held | {"optimizer": bytes_of([*state, *masters])}


class WholeGradients:
    """Bytes of the gradients that ZeRO-1 holds on a rank until it divides them, at the end of a backward pass; 0 under other engines."""

    def __init__(self, engine: Engine, model: torch.nn.Module) -> None:
        self.bytes, self._model = 0, model
        if getattr(engine, "stage", None) == 1:
            zero: Any = engine._wrapped.optimizer  # type: ignore[attr-defined]
            self._divide, zero.reduce_gradients = zero.reduce_gradients, self._count

    def _count(self, **options: Any) -> None:
        self.bytes = bytes_of([gradient for parameter in self._model.parameters() for gradient in (parameter.grad,) if gradient is not None])
        self._divide(**options)


def gradients(engine: Engine, model: torch.nn.Module) -> list[torch.Tensor]:
    """Returns what this rank holds of the gradients after a backward pass: its part under ZeRO-2 and 3, in DeepSpeed's own buffers."""
    beside = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if engine.name != "deepspeed":
        return beside
    zero: Any = engine._wrapped.optimizer  # type: ignore[attr-defined]
    if engine.stage == 3:  # type: ignore[attr-defined]
        return [*beside, zero.grad_partitions_flat_buffer]
    return [*beside, *(part for parts in zero.averaged_gradients.values() if parts for part in parts)]


def bytes_of(tensors: list[torch.Tensor]) -> int:
    """Returns the bytes of what this rank holds of tensors; storages that several share count once."""
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    distinct = {(tensor.untyped_storage().data_ptr(), tensor.storage_offset()): tensor.numel() * tensor.element_size() for tensor in local}
    return int(sum(distinct.values()))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
