"""Which process this is: read once from what the launcher says."""

from __future__ import annotations

import os
from dataclasses import dataclass

from launch.config.errors import ConfigError, Problem

_OTHER_WORLDS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
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
        ConfigError: started several times by something that does not say how the processes find each other.
    """
    if "WORLD_SIZE" not in os.environ:
        for name in _OTHER_WORLDS:
            if os.environ.get(name, "1") not in ("", "1"):
                what = f"{os.environ[name]} processes were started ({name}), but WORLD_SIZE is not set: each would train a model of its own"
                raise ConfigError(Problem(what, fix="fullrank run, torchrun or accelerate launch; under srun one launcher a node"))
        return World()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return World(rank, world_size, int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", world_size)))
