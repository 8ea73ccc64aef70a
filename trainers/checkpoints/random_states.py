"""The random number generators of a rank: seeded, read and restored together."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_random_states(seed: int, rank: int, step: int = 0) -> None:
    """Seeds every generator for a rank that starts at a step: dropout differs between ranks, and after a change of their number."""
    states = np.random.SeedSequence([seed, rank, step]).generate_state(3, np.uint64)
    torch.manual_seed(int(states[0]) >> 1)
    np.random.seed(int(states[1]) % 2**32)
    random.seed(int(states[2]))


def random_states(device: torch.device) -> dict[str, Any]:
    """Returns every generator's state as types that `weights_only` reads."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(state: Mapping[str, Any], device: torch.device) -> None:
    """Puts every generator where `random_states` found it."""
    random.setstate(state["python"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
