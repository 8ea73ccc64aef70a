"""Which process this is: read once from what the launcher says."""

from __future__ import annotations

import os
from dataclasses import dataclass

from launch.config.errors import ConfigError, Problem

OTHER_WORLDS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
"""Process counts of launchers that do not set WORLD_SIZE: more than one there means models that nobody keeps in step."""


@dataclass(frozen=True)
class World:
    """Which process this is, as every launcher says it (torchrun's variables)."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def read_world() -> World:
    """Returns this process's place; the only reader of RANK and WORLD_SIZE.

    Raises:
        ConfigError: a variable is missing or not a number, or the process was started several times by something that
            does not say how the processes find each other.
    """
    if "WORLD_SIZE" not in os.environ:
        for name in OTHER_WORLDS:
            if os.environ.get(name, "1") not in ("", "1"):
                what = f"{os.environ[name]} processes were started ({name}), but WORLD_SIZE is not set: each would train a model of its own"
                raise ConfigError(Problem(what, fix="fullrank run, torchrun or accelerate launch; under srun one launcher a node"))
        return World()
    world_size = _number("WORLD_SIZE", None)
    rank = _number("RANK", 0 if world_size == 1 else None)
    return World(rank, world_size, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", world_size))


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        what = f"{name} is {text!r}" if text else f"WORLD_SIZE is set, but {name} is not" if name not in os.environ else f"{name} is empty"
        fix = "unset WORLD_SIZE RANK for one process; several are started by fullrank run, torchrun or accelerate launch"
        raise ConfigError(Problem(what, allowed="a whole number", fix=fix))
    return int(text)
