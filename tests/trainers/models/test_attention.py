"""Attention of transformers' models: packed texts see themselves alone, and dropout on a CPU changes nothing but its masks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification, RobertaConfig
from transformers import RobertaForSequenceClassification as Roberta
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from launch.config.errors import ConfigError
from trainers.models.attention import Packing, attend, attention, use_attention
from trainers.models.first_token import read_first_token
from trainers.texts.packing import first_position, pack, prove_packed_texts

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "num_labels": 3,
}
IDS = torch.arange(5, 35).view(3, 10)
MASK = torch.tensor([[1] * 10, [1] * 7 + [0] * 3, [1] * 2 + [0] * 8])
LABELS = torch.tensor([0, 1, 2])


def losses_and_gradients(network: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    network.zero_grad()
    losses = torch.nn.functional.cross_entropy(network(**inputs).logits, LABELS, reduction="none")
    losses.sum().backward()
    return losses.detach(), {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def lean(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    network = kind(config).eval()
    use_attention(network)
    assert read_first_token(network)
    return network


@pytest.mark.parametrize(
    ("kind", "config"), [(BertForSequenceClassification, BertConfig(**SMALL)), (Roberta, RobertaConfig(**SMALL, pad_token_id=1))]
)
def test_packed_texts_lose_what_padded_ones_lose_and_have_their_gradients(kind: Any, config: Any) -> None:
    network = lean(kind, config)
    padded = {"input_ids": IDS.where(MASK.bool(), config.pad_token_id), "attention_mask": MASK}
    losses, gradients = losses_and_gradients(network, padded)
    packed = pack(padded, first_position(network))
    assert packed["input_ids"].tolist() == [[*range(5, 15), *range(15, 22), 25, 26]]
    packed_losses, packed_gradients = losses_and_gradients(network, packed)
    torch.testing.assert_close(packed_losses, losses, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(packed_gradients, gradients, rtol=1e-4, atol=1e-7)


def test_a_packed_text_does_not_see_its_neighbour() -> None:
    network = lean(BertForSequenceClassification, BertConfig(**SMALL))
    other = IDS.clone()
    other[1] = 50
    first, second = (network(**pack({"input_ids": ids, "attention_mask": MASK}, 0)).logits for ids in (IDS, other))
    assert torch.equal(first[[0, 2]], second[[0, 2]])
    assert not torch.equal(first[1], second[1])


def test_padding_on_the_left_is_left_out_too() -> None:
    ids = torch.tensor([[0, 0, 7, 8], [4, 5, 6, 7]])
    packed = pack({"input_ids": ids, "token_type_ids": ids % 2, "attention_mask": (ids > 0).long()}, 2)
    assert packed["input_ids"].tolist() == [[7, 8, 4, 5, 6, 7]]
    assert packed["token_type_ids"].tolist() == [[1, 0, 0, 1, 0, 1]]
    assert packed["position_ids"].tolist() == [[2, 3, 2, 3, 4, 5]]
    packing: Packing = packed["packing"]
    assert packing.slots.tolist() == [0, 1, 4, 5, 6, 7]
    assert packing.starts.tolist() == [0, 2]


def test_what_is_spread_is_collected_again_and_gradients_go_the_same_way_back() -> None:
    packing = Packing(torch.tensor([0, 1, 3]), torch.tensor([[True, True, False], [True, False, False]]))
    rows = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    spread = packing.spread(rows)
    assert (tuple(spread.shape), float(spread[1, 1:].detach().abs().sum())) == ((2, 3, 4), 0.0)
    assert torch.equal(packing.collect(spread), rows)
    assert torch.autograd.gradcheck(lambda given: packing.collect(packing.spread(given) ** 2), rows)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (DistilBertForSequenceClassification, DistilBertConfig(vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=32)),
        (BertForSequenceClassification, BertConfig(**SMALL, attn_implementation="eager")),
    ],
)
def test_a_model_that_would_mix_packed_texts_is_refused(kind: Any, config: Any) -> None:
    network = kind(config).train()
    use_attention(network)
    read_first_token(network)
    with pytest.raises(ConfigError, match=r"does not keep packed texts apart"):
        prove_packed_texts(network, 60)
    assert network.training


def test_a_model_that_keeps_them_apart_is_accepted() -> None:
    prove_packed_texts(lean(BertForSequenceClassification, BertConfig(**SMALL)), 60)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("mask", [None, MASK.bool()[:, None, None], torch.randn(3, 1, 10, 10)])
def test_attention_with_dropout_has_the_mean_of_attention_without(mask: torch.Tensor | None, scaling: float | None) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(3, 2, 10, 8) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scaling)
    many = torch.stack([attend(query, key, value, mask, 0.1, scaling) for _ in range(600)])
    assert float((many.mean(0) - expected).abs().max()) < 0.15
    assert float(many.std(0).max()) > 0.05
    nearly = attend(query, key, value, mask, 1e-6, scaling)  # 0 of 65,536
    torch.testing.assert_close(nearly, expected, rtol=1e-5, atol=1e-6)


def test_what_is_not_plain_attention_is_left_to_the_library() -> None:
    query, key, value = (torch.randn(1, 2, 5, 4) for _ in range(3))

    class Causal(torch.nn.Module):
        is_causal = True

    torch.manual_seed(0)
    ours, _ = attention(Causal(), query, key, value, None, dropout=0.5)
    torch.manual_seed(0)
    theirs, _ = sdpa_attention_forward(Causal(), query, key, value, None, dropout=0.5)
    assert torch.equal(ours, theirs)


def test_a_model_in_an_evaluation_computes_what_the_library_does() -> None:
    torch.manual_seed(0)
    network = BertForSequenceClassification(BertConfig(**SMALL)).eval()
    before = network(input_ids=IDS, attention_mask=MASK).logits
    use_attention(copy.deepcopy(network))
    assert torch.equal(network(input_ids=IDS, attention_mask=MASK).logits, before)
