"""Stands in for memory that is missing, in ranks that tests/forked_ranks.py forks: on a CPU the system kills, and there is no error to meet.

What a rank lacks comes in variables: TEST_ROOM_MIB, what rank 1 has free (rank 0 has plenty); TEST_MOST_SAMPLES, above which a pass runs out
of memory on the ranks of TEST_SHORT_RANKS. Everything else, the measuring passes too, is as in a training.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from trainers import rehearsal


def prepare(rank: int) -> None:
    """Makes this rank short of memory, from here on."""
    room, most = os.environ.get("TEST_ROOM_MIB"), int(os.environ.get("TEST_MOST_SAMPLES", "0"))
    whole_pass, is_short = rehearsal.throw_away_pass, str(rank) in os.environ.get("TEST_SHORT_RANKS", "")

    def pass_or_run_out(engine: Any, task: Any, model: Any, indices: Sequence[int]) -> None:
        if is_short and len(indices) > most:
            raise torch.OutOfMemoryError("a stand-in: out of memory")
        whole_pass(engine, task, model, indices)

    rehearsal.can_run_out_of_memory = lambda engine: True
    rehearsal._free_bytes = lambda engine: int(float(room) * 2**20) if room and rank == 1 else 2**50
    rehearsal.throw_away_pass = pass_or_run_out
    rehearsal.GRACE_S = 1.0
