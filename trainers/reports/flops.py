"""What share of the device's matrix rate a training on texts reaches: the model's arithmetic, over what one large product does a second."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from launch.config.experiment import Precision
from trainers.engine import Engine

_SIZES = {"cpu": 1024, "cuda": 8192}
_ROUNDS = {"cpu": 4, "cuda": 10}
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}


def flops_per_token(network: nn.Module, head_share: float = 0.0) -> int:
    """Returns the floating point operations of a forward and backward pass a token: 6 a weight of a matrix (arXiv:2001.08361, section 2.1).

    Of frozen weights no gradient is made: 4. Tables of embeddings are looked up, and attention's products of two activations are a few
    percent at these lengths: neither counts.

    Args:
        head_share: of the tokens whose vectors go through what lies outside the body and through poolers: 1 where the next token is
            predicted of each, nearly 0 where one vector of a whole text is classified.
    """
    body = {id(module) for name, module in getattr(network, "base_model", network).named_modules() if "pooler" not in name}
    matrices: list[Any] = [module for module in network.modules() if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"]
    shares = [(module.weight, 1.0 if id(module) in body else head_share) for module in matrices]
    return round(sum(share * (6 if weight.requires_grad else 4) * weight.numel() for weight, share in shares))


def matrix_flops_per_second(device: torch.device, precision: Precision = "fp32") -> float:
    """Returns the rate of one large square matrix product on this device: the best of a few.

    On a CPU by the time that the threads computed, not by the clock: other work on the machine is not to make the rate look small.
    """
    size, best = _SIZES.get(device.type, 1024), float("inf")
    left, right = (torch.ones(size, size, device=device, dtype=_TYPES.get(precision, torch.float32)) for _ in range(2))
    clock, num_threads = (time.process_time, torch.get_num_threads()) if device.type == "cpu" else (time.perf_counter, 1)
    for _ in range(_ROUNDS.get(device.type, 4)):
        started = clock()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (clock() - started) / num_threads)
    return 2 * size**3 / best


def arithmetic_facts(engine: Engine, flops: int | None) -> dict[str, float]:
    """Returns what the report compares: the operations a token, and all ranks' matrix rates together; empty for None. Every rank must call this."""
    if flops is None:
        return {}
    rates = engine.gather_objects(matrix_flops_per_second(engine.device, engine.precision))
    return {"flops_per_token": flops, "matrix_flops_per_second": sum(rates)}
