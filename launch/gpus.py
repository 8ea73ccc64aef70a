"""What NVIDIA's tool says of this machine's GPUs; asked without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        capability: its compute capability, e.g. (8, 0) for an A100, (9, 0) for an H100.
        memory_bytes: all of its memory.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int


def probe_gpus(num_gpus: int) -> tuple[Gpu, ...]:
    """Returns the first `num_gpus` GPUs that a training would see; empty where nvidia-smi is missing or does not answer."""
    if not num_gpus or not shutil.which("nvidia-smi"):
        return ()
    argv = ["nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(argv, capture_output=True, check=True, timeout=20, text=True, errors="replace").stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return visible(parse_gpus(text), os.environ.get("CUDA_VISIBLE_DEVICES"))[:num_gpus]


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Returns the GPUs in nvidia-smi's lines of name, compute capability and MiB; a line that it could not answer is left out."""
    gpus = []
    for line in text.splitlines():
        name, _, rest = line.rpartition(",")[0].rpartition(",")
        memory = line.rpartition(",")[2].strip()
        major, _, minor = rest.strip().partition(".")
        if major.isdigit() and minor.isdigit() and memory.isdigit():
            gpus.append(Gpu(name.strip(), (int(major), int(minor)), int(memory) * 2**20))
    return tuple(gpus)


def visible(gpus: tuple[Gpu, ...], devices: str | None) -> tuple[Gpu, ...]:
    """Returns the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; names it does not understand leave all."""
    numbers = [] if devices is None else [number.strip() for number in devices.split(",")]
    if not all(number.isdigit() and int(number) < len(gpus) for number in numbers):
        return gpus
    return tuple(gpus[int(number)] for number in numbers) or gpus
