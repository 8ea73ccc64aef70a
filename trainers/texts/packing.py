"""Several texts in one row of which none sees another: attention in blocks along the diagonal, positions beginning anew."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from trainers.models.attention import PACKING, Packing

PROOF_TOLERANCE = 1e-3
"""Of outputs that are about 1 in size; a text that sees its neighbour, or counts its positions on, differs in the first digit."""


def positions_in_segments(segments: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns each token's place in its own text, int64 [B, T], for rows of numbered texts [B, T]."""
    columns = np.arange(segments.shape[1])
    begins = np.ones_like(segments, bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    firsts: NDArray[np.int64] = np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
    return columns - firsts


def attention_within_segments(segments: Tensor, is_causal: bool, implementation: str) -> Tensor:
    """Returns what may look at what, [B, 1, T, T]: bool for scaled_dot_product_attention, else float32 to be added to the scores.

    Padding (segment 0) looks at padding, so that no softmax is over nothing.
    """
    allowed = segments[:, None, :, None] == segments[:, None, None, :]
    if is_causal:
        allowed = allowed & torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    if implementation == "sdpa":
        return allowed
    return torch.zeros(allowed.shape, device=segments.device).masked_fill(~allowed, torch.finfo(torch.float32).min)


def first_position(network: nn.Module) -> int:
    """Returns the number of a text's first position: 0, or in RoBERTa's family the one behind that of padding."""
    tables = (module for name, module in network.named_modules() if name.endswith("position_embeddings") and isinstance(module, nn.Embedding))
    padding = next((table.padding_idx for table in tables if table.padding_idx is not None), None)
    return 0 if padding is None else padding + 1


def pack(inputs: Mapping[str, Tensor], first_position: int) -> dict[str, Any]:
    """Returns what a model with use_attention is called with, so that it computes the tokens of a padded batch and no padding.

    Args:
        inputs: attention_mask, and input_ids and what else is said of each token, [B, T].
    """
    is_token = inputs["attention_mask"].bool()
    columns = torch.arange(is_token.shape[1], device=is_token.device).expand(is_token.shape)
    left = columns < is_token.sum(dim=1, keepdim=True)
    packed = {name: values[is_token][None] for name, values in inputs.items() if name != "attention_mask"}
    packing = Packing(left.flatten().nonzero().squeeze(1), left)
    return packed | {"position_ids": columns[left][None] + first_position, PACKING: packing}


def prove_packed_texts(network: Any, vocabulary: int) -> None:
    """Classifies two short texts of different lengths packed, and padded.

    Raises:
        ConfigError: the outputs differ, or this kind of model cannot be called with packed texts: its last layer must compute the first
            token alone (trainers/models/first_token.py).
    """
    inputs = {"input_ids": torch.arange(10, 20).remainder(vocabulary).view(2, 5), "attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])}
    was_training = network.training
    network.eval()
    with torch.no_grad():
        padded = network(**inputs).logits
        try:
            packed = network(**pack(inputs, first_position(network))).logits
            worst = float((packed - padded).abs().max()) if packed.shape == padded.shape else float("inf")
        except Exception:  # whatever a model makes of a keyword that it does not hand on
            worst = float("inf")
    network.train(was_training)
    if not worst <= PROOF_TOLERANCE * max(1.0, float(padded.abs().max())):
        what = f"{type(network).__name__} (attention: {network.config._attn_implementation}) does not keep packed texts apart"
        raise ConfigError(Problem(what, key="task.packing", allowed="models built like BERT", fix="task.packing=false"))


def prove_packing(network: nn.Module, is_causal: bool, vocabulary: int) -> None:
    """Computes two short texts side by side and each by itself.

    Raises:
        ConfigError: the outputs differ: this kind of model does not keep packed texts apart.
    """
    kind = type(network).__name__
    attention = str(getattr(network.config, "_attn_implementation", ""))
    takes_positions = "position_ids" in inspect.signature(network.forward).parameters
    fix = "task.rows=single, or joined"
    if not takes_positions or attention not in ("sdpa", "eager"):
        what = f"{kind} (attention: {attention}) cannot be told where packed texts begin"
        raise ConfigError(Problem(what, key="task.rows", fix=fix))
    was_training = network.training
    network.eval()
    ids = torch.arange(10, 19, device=next(network.parameters()).device).remainder(vocabulary)[None]
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 2]], device=ids.device)
    positions = torch.from_numpy(positions_in_segments(segments.cpu().numpy())).to(ids.device) + first_position(network)
    with torch.no_grad():
        packed = network(input_ids=ids, position_ids=positions, attention_mask=attention_within_segments(segments, is_causal, attention)).logits
        alone = torch.cat([network(input_ids=ids[:, :4]).logits, network(input_ids=ids[:, 4:]).logits], dim=1)
    network.train(was_training)
    worst = float((packed - alone).abs().max())
    if worst > PROOF_TOLERANCE * max(1.0, float(alone.abs().max())):
        raise ConfigError(Problem(f"{kind} does not keep packed texts apart: its outputs differ by {worst:.1e}", key="task.rows", fix=fix))
