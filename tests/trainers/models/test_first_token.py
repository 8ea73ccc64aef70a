"""The last layer computes what the head reads: the same outputs and gradients, or it stays as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from trainers.models.first_token import read_first_token

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
IDS = torch.arange(5, 35).view(3, 10)
MASK = torch.tensor([[1] * 10, [1] * 7 + [0] * 3, [1] * 2 + [0] * 8])


def loss_and_gradients(network: Any) -> tuple[float, dict[str, torch.Tensor]]:
    network.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(input_ids=IDS, attention_mask=MASK).logits, torch.tensor([0, 1, 0]))
    loss.backward()
    return float(loss.detach()), {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (BertForSequenceClassification, BertConfig(**SMALL)),
        (RobertaForSequenceClassification, RobertaConfig(**SMALL, pad_token_id=1)),
        (ElectraForSequenceClassification, ElectraConfig(**SMALL, embedding_size=16)),
    ],
)
def test_outputs_and_gradients_are_those_of_the_whole_layer(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    whole = kind(config).eval()
    lean = copy.deepcopy(whole)
    assert read_first_token(lean)
    assert not lean.training
    (loss, gradients), (same_loss, same_gradients) = loss_and_gradients(whole), loss_and_gradients(lean)
    assert same_loss == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(same_gradients, gradients, rtol=1e-4, atol=1e-7)
    assert list(lean.state_dict()) == list(whole.state_dict())


def test_the_last_layer_gives_one_token_and_drops_while_it_trains() -> None:
    torch.manual_seed(0)
    network = BertForSequenceClassification(BertConfig(**SMALL))
    assert network.train().training
    assert read_first_token(network)
    shapes = []
    network.bert.encoder.layer[-1].register_forward_hook(lambda module, given, output: shapes.append(tuple(output.shape)))
    first, second = (network(input_ids=IDS, attention_mask=MASK).logits for _ in range(2))
    assert shapes == [(3, 1, 16)] * 2
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (BertForTokenClassification, BertConfig(**SMALL)),
        (DistilBertForSequenceClassification, DistilBertConfig(vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=32)),
        (AlbertForSequenceClassification, AlbertConfig(**SMALL, embedding_size=16)),
        (BertForSequenceClassification, BertConfig(**SMALL, attn_implementation="eager")),
    ],
)
def test_other_heads_and_layers_stay_as_they_were(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    network = kind(config).eval()
    before = network(input_ids=IDS, attention_mask=MASK).logits
    assert not read_first_token(network)
    assert torch.equal(network(input_ids=IDS, attention_mask=MASK).logits, before)
    assert not any("forward" in vars(module) for module in network.modules())
