"""The last layer of an encoder computes the first token alone where the head reads nothing else."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor

from trainers.models.attention import PACKING, Packing, attend

LAYERS = ("BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer")
"""Layers of transformers that are built alike: post-norm, attention.self with query, key and value, attention.output, intermediate, output."""

_TOLERANCE = 1e-5


def read_first_token(network: Any) -> bool:
    """Lets the last layer of a classifier of sequences compute what its head reads; returns whether it does.

    Keys and values still come of every token; queries, the attention's output and the feed-forward net, 10 of 12 parts of the layer's
    matrix products, of the first. The outputs are the same, and where they are not (another kind of layer or head, another version of
    the library), the network stays as it was.
    """
    layers = getattr(getattr(getattr(network, "base_model", None), "encoder", None), "layer", None)
    if layers is None or type(layers[-1]).__name__ not in LAYERS or getattr(network.config, "_attn_implementation", None) != "sdpa":
        return False
    last = layers[-1]
    was_training = network.training
    network.eval()
    ids = torch.arange(8, 24).remainder(network.config.vocab_size).view(2, 8)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.no_grad():
        before = network(input_ids=ids, attention_mask=mask).logits
        last.forward = MethodType(_first_token_alone, last)
        try:
            is_same = torch.allclose(network(input_ids=ids, attention_mask=mask).logits, before, rtol=_TOLERANCE, atol=_TOLERANCE)
        except Exception:  # whatever another version's layer or head makes of it: it is not this kind
            is_same = False
    network.train(was_training)
    if not is_same:
        del last.forward
    return is_same


def _first_token_alone(self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *rest: Any, **options: Any) -> Tensor:
    """Returns [B, 1, H] of [B, T, H], or of B packed texts in [1, N, H]."""
    attention = self.attention.self
    packing: Packing | None = options.get(PACKING)
    key, value = attention.key(hidden_states), attention.value(hidden_states)
    if packing is None:
        first, seen = hidden_states[:, :1], None if attention_mask is None else attention_mask[:, :, :1]
    else:
        first, seen = hidden_states[0, packing.starts, None], packing.is_token[:, None, None]
        key, value = packing.spread(key), packing.spread(value)
    query, key, value = (_heads(vectors, attention) for vectors in (attention.query(first), key, value))
    context = attend(query, key, value, seen, attention.dropout.p if self.training else 0.0)
    attended = self.attention.output(context.transpose(1, 2).flatten(2), first)
    answer: Tensor = self.output(self.intermediate(attended), attended)
    return answer


def _heads(hidden: Tensor, attention: Any) -> Tensor:
    return hidden.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
