"""DeepSpeed's own configuration, every "auto" of it resolved; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launch.config.experiment import Experiment, Precision
from launch.config.resolve import BatchArithmetic
from launch.config.sharding import DeepSpeed


@dataclass(frozen=True)
class DeepSpeedFacts:
    """What is decided elsewhere and a DeepSpeed file may not contradict.

    Args:
        hidden_size: width of the model, which ZeRO-3's bucket sizes follow; None: unknown, DeepSpeed's own defaults are written.
    """

    experiment: Experiment
    batches: BatchArithmetic
    precision: Precision
    hidden_size: int | None = None


def resolve_deepspeed(deepspeed: DeepSpeed, facts: DeepSpeedFacts) -> dict[str, Any]:
    """Returns the configuration as deepspeed.initialize takes it: numbers only, without optimizer and scheduler (the experiment's are built).

    Raises:
        ConfigError: the file says other batch sizes, clipping or precision than the experiment; names both places.
    """
    raise NotImplementedError
