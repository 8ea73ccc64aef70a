"""What a classifier looked at: integrated gradients of a text's tokens, Grad-CAM of a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

NUM_STEPS = (16, 64, 256)
"""Points of the path from nothing to a text: more where fewer leave out more than LEFT_OUT of the way, as long as more help."""
LEFT_OUT = 0.02
STEPS_AT_ONCE = 32


def can_be_explained(model: nn.Module) -> bool:
    """Returns whether this process has the whole model; where ranks divide its parameters, gradients of a few samples are not worth the way."""
    return not any(isinstance(parameter, DTensor) or hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def with_gradients(model: nn.Module) -> Iterator[None]:
    """Gradients inside an evaluation, of whole modules as they were written: not compiled, and not in Accelerate's 16 bits.

    Rounding to 16 bits is larger than LEFT_OUT, and most CPUs only imitate them, many times slower.
    """
    written, forward, device = vars(model).get("_original_forward"), model.forward, next(model.parameters()).device.type
    try:
        if written:
            model.forward = written
        with torch.autocast(device, enabled=False), torch.inference_mode(False), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if written:
            model.forward = forward


def integrated_gradients(score: Callable[[Tensor], Tensor], given: Tensor, baseline: Tensor, num_steps: int) -> Tensor:
    """Returns what each value of `given` adds to its score, in the shape of `given`: (given - baseline) times the mean gradient on the way.

    The sum is score(given) - score(baseline) but for the rule of midpoints (Sundararajan et al., arXiv:1703.01365: completeness).

    Args:
        score: float [N, ...] -> float [N].
        given, baseline: float [...], without gradients.
    """
    summed = torch.zeros_like(given)
    for places in ((torch.arange(num_steps, device=given.device) + 0.5) / num_steps).split(STEPS_AT_ONCE):
        way = baseline + places.reshape(-1, *[1] * given.ndim) * (given - baseline)
        way.requires_grad_(True)
        (gradients,) = torch.autograd.grad(score(way).sum(), way)
        summed += gradients.sum(dim=0)
    return (given - baseline) * summed / num_steps


def explain_tokens(model: Any, inputs: dict[str, Tensor], label: int, pad_token_id: int, special: Tensor) -> tuple[Tensor, float, float]:
    """Returns what each token of one text adds to the logit of a class, float [T]; that logit, and the logit of the text without words.

    Without words: every token that is not special is replaced by padding.

    Args:
        inputs: input_ids and what else the model reads, [1, T].
        special: bool [T], [CLS] and its like.
    """
    body = getattr(model, "body", model)
    embedding = body.get_input_embeddings()
    ids = inputs["input_ids"].clone()
    empty = torch.where(special, ids, pad_token_id)
    with torch.no_grad():
        given, baseline = embedding(ids)[0].clone(), embedding(empty)[0].clone()
        dtype = given.dtype  # 16 bits under ZeRO in bf16 or fp16, whose next layer takes nothing else
        given, baseline = given.float(), baseline.float()

    def score(embedded: Tensor) -> Tensor:
        handle = embedding.register_forward_hook(lambda *_: embedded.to(dtype))
        try:
            repeated = {name: values.expand(len(embedded), -1) for name, values in inputs.items()}
            return model(**repeated).logits[:, label].float()
        finally:
            handle.remove()

    with torch.no_grad():
        last, first = score(torch.stack([given, baseline])).tolist()
    left_out = math.inf
    for num_steps in NUM_STEPS:
        before, added = left_out, integrated_gradients(score, given, baseline, num_steps).sum(dim=-1)
        left_out = abs(float(added.sum()) - (last - first))
        if left_out <= LEFT_OUT * abs(last - first) or left_out > before / 2:  # what is left is rounding
            break
    return added, last, first


def class_activation(model: nn.Module, logits_of: Callable[[Tensor], Tensor], pixels: Tensor, label: int) -> Tensor | None:
    """Returns where a picture speaks for a class, float [H, W] from 0 to 1 (Grad-CAM: Selvaraju et al., arXiv:1610.02391).

    By the last thing in the network that still has places: the maps that the pooling reads. None for networks that have no such maps to the
    end, as transformers do.

    Args:
        logits_of: float [1, C, H, W] -> float [1, K], through `model`.
        pixels: float [1, C, H, W].
    """
    if any("attention" in type(module).__name__.lower() for module in model.modules()):
        return None
    maps: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            maps.append(output)

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        logits = logits_of(pixels.clone().requires_grad_(True))
    finally:
        for handle in handles:
            handle.remove()
    if not maps:
        return None
    (gradients,) = torch.autograd.grad(logits[0, label], maps[-1])
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    places = functional.relu((weights * maps[-1]).sum(dim=1, keepdim=True)).detach()
    whole = functional.interpolate(places.float(), size=pixels.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    return whole / whole.max().clamp(min=1e-12)
