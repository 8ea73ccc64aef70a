"""A process group of one: what divides over ranks runs the same code on a single process."""

from __future__ import annotations

import torch


def open_group_of_one(backend: str) -> None:
    """Opens it, without a port; Engine.close leaves it."""
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
