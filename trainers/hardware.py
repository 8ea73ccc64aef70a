"""Which device trains, and in which arithmetic: asked for, there, and able to."""

from __future__ import annotations

import os

import torch

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Precision
from launch.config.strategy import Strategy

ACCELERATE_PRECISION: dict[Precision, str] = {"fp32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16", "fp8": "fp8"}
_TOLD: dict[str, Precision] = {"no": "fp32", "bf16": "bf16", "fp16": "fp16", "fp8": "fp8"}
_CAPABILITY: dict[Precision, tuple[tuple[int, int], str]] = {
    "tf32": ((8, 0), "an A100 or newer"),
    "fp16": ((5, 3), "a GPU"),
    "fp8": ((8, 9), "an L4, H100 or newer"),
}
"""Smallest compute capability with units for it (CUDA C++ Programming Guide, arithmetic instructions); bf16 is emulated below 8.0."""


def choose_device(strategy: Strategy | None) -> str:
    """Returns `cpu` or `cuda`: what the strategy or Accelerate's environment says, else what there is.

    Raises:
        ConfigError: GPUs are asked for, or visibly there, and torch cannot use them.
    """
    if (strategy and strategy.use_cpu) or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    asked = strategy is not None and strategy.use_cpu is False and strategy.where is not None
    if asked or os.path.exists("/proc/driver/nvidia/version"):
        why = f"the strategy {strategy.where} is for GPUs" if asked and strategy else "this machine has an NVIDIA driver"
        what = f"{why}, but torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU it can use"
        raise ConfigError(
            Problem(what, fix="--strategy cpu to train on the CPU on purpose; otherwise compare the driver's CUDA version with torch's")
        )
    return "cpu"


def choose_precision(experiment: Precision | None, strategy: Strategy | None) -> Precision:
    """Returns the experiment's precision, else the strategy's, else what `accelerate launch` was told, else fp32."""
    precision = experiment or (strategy.precision if strategy else None)
    if precision is not None:
        return precision
    told = os.environ.get("ACCELERATE_MIXED_PRECISION") or "no"
    if told not in _TOLD:
        raise ConfigError(Problem(f"mixed_precision {told!r} is not possible", allowed=", ".join(_TOLD)))
    return _TOLD[told]


def refuse_precision(precision: Precision, device: str) -> list[str]:
    """Returns a warning where a precision is emulated.

    Raises:
        ConfigError: the device has none of it.
    """
    capability = torch.cuda.get_device_capability() if device == "cuda" else None
    if precision in _CAPABILITY and (capability is None or capability < _CAPABILITY[precision][0]):
        smallest, words = _CAPABILITY[precision]
        why = " (loss scaling)" if precision == "fp16" else f" (compute capability {smallest[0]}.{smallest[1]})"
        here = "" if capability is None else f"; this one has {capability[0]}.{capability[1]}"
        fix = "train.precision=bf16" if precision != "tf32" else "train.precision=fp32"
        raise ConfigError(Problem(f"{precision} needs {words}{why}{here}", key="train.precision", allowed="fp32, bf16", fix=fix))
    if precision == "bf16" and device == "cpu":
        return ["warning: bf16 on a CPU without AMX is about 3 times slower than fp32"]
    if precision == "bf16" and capability is not None and capability < (8, 0):
        return ["warning: this GPU has no bf16 units: it is emulated, slower than fp32; fp16 is fast here"]
    if precision == "fp8":
        return ["warning: fp8 is written after Accelerate's documentation and has not been proved on a GPU"]
    return []


def prepare_arithmetic(precision: Precision) -> None:
    """Lets products of fp32 matrices be rounded to tf32, or not; for this process, from now on."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
