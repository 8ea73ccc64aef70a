"""What keeps the processes in step: one table of engines."""

from __future__ import annotations

import importlib

from launch.config.experiment import Experiment, Precision
from launch.config.resolve import BatchArithmetic
from launch.config.strategy import Strategy
from trainers.engine import Engine
from trainers.world import World

ENGINES: dict[str, str] = {
    "single": "trainers.engine:Engine",
    "ddp": "trainers.engine:Engine",
    "fsdp2": "trainers.engines.fsdp2:Fsdp2Engine",
    "deepspeed": "trainers.engines.zero:ZeroEngine",
}
"""A strategy's engine -> its class, imported on use."""


def build_engine(world: World, strategy: Strategy | None, precision: Precision, experiment: Experiment, arithmetic: BatchArithmetic) -> Engine:
    """Joins the process group and returns the engine that the strategy asks for. Every rank must call this.

    Raises:
        ConfigError: the strategy cannot run here.
    """
    module, _, name = ENGINES[(strategy and strategy.engine) or "ddp"].partition(":")
    kind = getattr(importlib.import_module(module), name)
    if kind is Engine:
        return Engine(world, strategy, precision)
    engine: Engine = kind(world, strategy, precision, experiment, arithmetic)
    return engine
