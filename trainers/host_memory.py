"""Keeps freed memory in the process: what one step frees, the next one takes again."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # mallopt(3), <malloc.h>


def keep_freed_memory() -> None:
    """Tells glibc's malloc to map no large blocks of their own and to give nothing back before the process ends.

    Otherwise the large tensors of each step (gradients, activations) are new pages of the system, each of which is filled with zeros at its first
    touch: 20,000 page faults a step of MiniLM, 8 % of its processor time (docs/throughput.md). The most memory that is held stays the same.
    Another C library has no such call, and keeps its ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
