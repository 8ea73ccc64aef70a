"""Where the checkout is, and an environment for the processes that tests start."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def clean_environment() -> dict[str, str]:
    """Returns this process's environment without what a launcher around the tests may have set."""
    dropped = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in dropped and not name.startswith(("FULLRANK_", "ACCELERATE_", "WANDB_"))}
