"""The arithmetic of a model a token, counted by hand, and a matrix rate that is one."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from trainers.reports.flops import flops_per_token, matrix_flops_per_second

BERT = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=20)
BODY = 2 * (4 * 16 * 16 + 2 * 16 * 32)
"""Weights of the matrices in two layers: query, key, value, output, and the feed-forward net's two."""


def test_a_token_costs_six_operations_a_weight_of_the_body() -> None:
    assert flops_per_token(BertForSequenceClassification(BERT)) == 6 * BODY


def test_the_head_costs_its_share_of_the_tokens() -> None:
    assert flops_per_token(BertForMaskedLM(BERT), head_share=0.5) == 6 * BODY + 3 * (16 * 16 + 16 * 50)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_inner=32))
    assert flops_per_token(gpt2, head_share=1.0) == 6 * (BODY + 16 * 50)


def test_frozen_weights_cost_no_gradient_of_their_own() -> None:
    network = BertForSequenceClassification(BERT)
    network.requires_grad_(False)
    assert flops_per_token(network) == 4 * BODY


def test_a_matrix_rate_is_that_of_a_real_machine() -> None:
    assert 1e8 < matrix_flops_per_second(torch.device("cpu")) < 1e15
