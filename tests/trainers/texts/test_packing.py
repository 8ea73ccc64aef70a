"""Packed texts: positions begin anew, none sees another, and a model that cannot keep them apart is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from launch.config.errors import ConfigError
from trainers.texts.packing import attention_within_segments, first_position, positions_in_segments, prove_packing

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


def test_positions_begin_anew_with_each_text_and_with_the_padding() -> None:
    segments = np.array([[1, 1, 2, 2, 2, 0], [1, 2, 3, 3, 0, 0]])
    assert positions_in_segments(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 1, 0, 1]]


def test_attention_is_a_block_for_each_text_and_a_triangle_where_it_is_causal() -> None:
    segments = torch.tensor([[1, 1, 2, 0]])
    both = attention_within_segments(segments, is_causal=False, implementation="sdpa")
    assert both[0, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    causal = attention_within_segments(segments, is_causal=True, implementation="eager")
    assert (causal[0, 0] == 0).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_roberta_and_gpt2_keep_packed_texts_apart(attention: str) -> None:
    torch.manual_seed(0)
    bert = BertForMaskedLM(BertConfig(**SMALL, attn_implementation=attention))
    roberta = RobertaForMaskedLM(RobertaConfig(**SMALL, pad_token_id=1, attn_implementation=attention))
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32, attn_implementation=attention))
    assert [first_position(network) for network in (bert, roberta, gpt2)] == [0, 2, 0]
    for network, is_causal in ((bert, False), (roberta, False), (gpt2, True)):
        network.train()
        prove_packing(network, is_causal, 40)
        assert network.training


def test_a_model_that_looks_at_its_neighbours_is_refused() -> None:
    torch.manual_seed(0)
    config = GPTNeoConfig(vocab_size=40, hidden_size=16, num_layers=2, num_heads=2, max_position_embeddings=32, attention_types=[[["global"], 2]])
    network = GPTNeoForCausalLM(config)
    forward = network.transformer.h[0].attn.forward
    network.transformer.h[0].attn.forward = lambda *given, attention_mask=None, **rest: forward(*given, **rest)
    with pytest.raises(ConfigError, match=r"task.rows: GPTNeoForCausalLM does not keep packed texts apart"):
        prove_packing(network, True, 40)
