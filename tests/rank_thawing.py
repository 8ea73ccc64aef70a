"""One rank that trains the last of two layers for two steps, then both: python rank_thawing.py STRATEGY RESULT."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

from launch.config.experiment import Experiment
from launch.config.resolve import BatchArithmetic
from launch.config.strategy import load_strategy
from tests.rank_memory import EXPERIMENT
from trainers.checkpoints.named_state import gather
from trainers.engines import build_engine
from trainers.world import read_world

OPTIONS = {"lr": 0.1, "weight_decay": 0.1}


def draw() -> tuple[nn.Module, torch.Tensor]:
    """Returns a model of two layers and 8 samples, float32 [8, 4], always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(8, 4)


def main(strategy: str, result: Path) -> None:
    """Takes four steps on 8 samples; rank 0 writes the weights after each. Every rank must call this."""
    world, experiment = read_world(), Experiment.model_validate(EXPERIMENT)
    share = 8 // world.world_size
    engine = build_engine(world, load_strategy(strategy), "fp32", experiment, BatchArithmetic(8, share, 1, world.world_size))
    model, samples = draw()
    model[0].requires_grad_(False)
    model, optimizer = engine.prepare(model, lambda built: torch.optim.AdamW(built.parameters(), **OPTIONS))
    own, history = samples[world.rank * share : (world.rank + 1) * share], []
    for step in range(4):
        if step == 2:
            model = engine.thaw(model, [p for p in engine.unwrap(model).parameters() if not p.requires_grad])
        engine.backward(model(own).square().sum(), 8)
        engine.take_step(model, optimizer, 1.0)
        history.append([gather(parameter.detach()).flatten().tolist() for parameter in engine.unwrap(model).parameters()])
    if world.is_main:
        result.write_text(json.dumps(history), encoding="utf-8")
    engine.barrier()
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
