"""What can start the processes of a training."""

from __future__ import annotations

from typing import Literal, get_args

Launcher = Literal["direct", "accelerate", "torchrun", "deepspeed"]
LAUNCHERS: tuple[Launcher, ...] = get_args(Launcher)
