"""Which arithmetic a device has, which it only imitates, and what that costs; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launch.config.experiment import Precision
from launch.gpus import Gpu


@dataclass(frozen=True)
class Need:
    """The compute capability a precision needs.

    Args:
        native: from here on the hardware computes in it.
        imitated: from here on it works, slower than it should; None: below `native` it does not.
        cost: of the imitation.
    """

    native: tuple[int, int]
    imitated: tuple[int, int] | None
    cost: str
    first: str


NEEDS: dict[Precision, Need] = {
    "tf32": Need((8, 0), None, "", "A100"),
    "bf16": Need(
        (8, 0), (5, 0), "it is computed in fp32 and rounded: slower than fp32, with bf16's accuracy; train.precision=fp16 is native", "A100"
    ),
    "fp16": Need((7, 0), (5, 3), "it saves memory, not time: there are no tensor cores", "V100"),
    "fp8": Need((8, 9), None, "", "L4 or H100"),
}
"""Source: the CUDA C++ Programming Guide, arithmetic by compute capability; torch.cuda.is_bf16_supported for the imitation of bf16."""

FP8_PACKAGES = ("transformer-engine", "torchao")
"""Either of them; Accelerate computes fp8 with it."""


def missing_on_gpus(precision: Precision, gpus: Sequence[Gpu]) -> str | None:
    """Returns why these GPUs cannot compute in a precision; None: they can, or nothing is known of them."""
    need, gpu = NEEDS.get(precision), _weakest(gpus)
    if need is None or gpu is None or gpu.capability >= (need.imitated or need.native):
        return None
    return f"{gpu.name} (compute capability {_text(gpu.capability)}) has no {precision}; the {need.first} ({_text(need.native)}) was the first"


def imitated_on_gpus(precision: Precision, gpus: Sequence[Gpu]) -> str | None:
    """Returns what it costs that these GPUs only imitate a precision; None: they have it, or lack it, or nothing is known of them."""
    need, gpu = NEEDS.get(precision), _weakest(gpus)
    if need is None or gpu is None or need.imitated is None or not need.imitated <= gpu.capability < need.native:
        return None
    return f"{gpu.name} (compute capability {_text(gpu.capability)}) imitates {precision}: {need.cost}"


def missing_on_cpu(precision: Precision) -> str | None:
    """Returns why a CPU cannot train in a precision; None: it can."""
    return {
        "fp16": "fp16 needs the loss scaling of a GPU; this training is on the CPU",
        "tf32": "tf32 is arithmetic of GPUs; this training is on the CPU",
        "fp8": "fp8 is arithmetic of GPUs; this training is on the CPU",
    }.get(precision)


def _weakest(gpus: Sequence[Gpu]) -> Gpu | None:
    return min(gpus, key=lambda gpu: gpu.capability, default=None)


def _text(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
