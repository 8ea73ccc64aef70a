"""Attention as the models of transformers call it: text by text where texts are packed, and with dropout that costs a CPU little."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.models.cpu_dropout import draws_words, drop

PACKING = "packing"
"""What models of transformers hand on to their attention when they are called with it: a Packing."""
_NOT_OURS = ("position_bias", "cache", "softcap")


@dataclass(frozen=True)
class Packing:
    """Texts one behind another in a row of N tokens, and where each token stands when they are laid out one a row.

    Args:
        slots: row * L + column of each token, int64 [N], ascending.
        is_token: bool [B, L]; each text begins in the first column.
    """

    slots: Tensor
    is_token: Tensor

    @cached_property
    def starts(self) -> Tensor:
        """The place of each text's first token in the row of N, int64 [B]."""
        lengths = self.is_token.sum(dim=1)
        return lengths.cumsum(0) - lengths

    def spread(self, packed: Tensor) -> Tensor:
        """Returns [B, L, ...] of [1, N, ...], zero where there is no token."""
        spread: Tensor = _Spread.apply(packed[0], self.slots, self.is_token.numel())
        return spread.unflatten(0, self.is_token.shape)

    def collect(self, spread: Tensor) -> Tensor:
        """Returns [1, N, ...] of [B, L, ...]."""
        collected: Tensor = _Collect.apply(spread.flatten(0, 1), self.slots)
        return collected[None]


class _Spread(torch.autograd.Function):
    """Writes each row to a place of its own."""

    @staticmethod
    def forward(context: Any, rows: Tensor, places: Tensor, num_places: int) -> Tensor:
        context.save_for_backward(places)
        return rows.new_zeros(num_places, *rows.shape[1:]).index_copy_(0, places, rows)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(0, *context.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    """Reads rows from different places; torch's own index_select must allow for a place that is read twice, and adds one row after the other."""

    @staticmethod
    def forward(context: Any, rows: Tensor, places: Tensor) -> Tensor:
        context.save_for_backward(places)
        context.num_places = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = context.saved_tensors
        return gradient.new_zeros(context.num_places, *gradient.shape[1:]).index_copy_(0, places, gradient), None


def use_attention(network: Any) -> None:
    """Lets a model of transformers that attends by scaled_dot_product_attention do it here; another one stays as it is."""
    if getattr(getattr(network, "config", None), "_attn_implementation", None) != "sdpa":
        return
    from transformers import AttentionInterface

    AttentionInterface.register("sdpa", attention)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0, **options: Any
) -> tuple[Tensor, None]:
    """Returns what transformers.AttentionInterface asks for: [B, T, heads, width] of [B, heads, T, width], and no weights.

    A `packing` among the options says which texts the one row holds: each sees itself alone. Where nothing is packed and nothing dropped,
    or there is a GPU to drop, it is the library's own function.
    """
    packing: Packing | None = options.pop(PACKING, None)
    if packing is not None:
        query, key, value = (packing.spread(heads.transpose(1, 2)).transpose(1, 2) for heads in (query, key, value))
        attention_mask = packing.is_token[:, None, None]
    elif not dropout or not draws_words(query) or not _is_plain(module, attention_mask, options):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **options)[0]
        return output, None
    context = attend(query, key, value, attention_mask, dropout, options.get("scaling")).transpose(1, 2).contiguous()
    return context if packing is None else packing.collect(context), None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None = None) -> Tensor:
    """Returns scaled_dot_product_attention of [B, heads, T, width], on a CPU with the dropout of trainers/models/cpu_dropout.py.

    torch has no kernel for a CPU that drops, and takes the same steps one by one.

    Args:
        mask: what may be looked at, bool, or float to be added to the scores.
    """
    if not 0 < dropout < 1 or not draws_words(query):
        return functional.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scaling)
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    return drop(scores.softmax(dim=-1), dropout) @ value


def _is_plain(module: nn.Module, mask: Tensor | None, options: dict[str, Any]) -> bool:
    """Returns whether attend() does what the library's function would."""
    is_causal = options.get("is_causal")
    looks_back = getattr(module, "is_causal", True) if is_causal is None else is_causal
    return (
        (mask is not None or not looks_back) and not hasattr(module, "num_key_value_groups") and all(options.get(name) is None for name in _NOT_OURS)
    )
