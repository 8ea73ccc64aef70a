"""The launcher's estimate, made without torch, against what torch itself holds."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from launch.config.errors import ConfigError
from launch.config.experiment import Lora, Optimizer
from launch.sizes.lora_size import with_adapters
from launch.sizes.memory import Layout, activation_bytes, estimate
from launch.sizes.model_size import read_body, read_model_size
from launch.sizes.torchvision_sizes import MARKERS, SIZES, torchvision_size
from trainers.assembly import count_parameters
from trainers.images.picture_by_picture import with_frozen_batch_norm
from trainers.models.lora import add_adapters
from trainers.optimizers import build_optimizer

TOKENS, SAMPLES = 48, 4


@pytest.fixture(scope="module")
def bert() -> BertForSequenceClassification:
    """A BERT of 2 layers of 128, so that the optimizer's step counters are small beside its moments."""
    config = BertConfig(
        vocab_size=2000, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512, max_position_embeddings=64
    )
    return BertForSequenceClassification._from_config(config, attn_implementation="eager")


def size_of(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(
    "optimizer", [Optimizer(name="adamw", lr=1e-3), Optimizer(name="sgd", lr=1e-3, momentum=0.9)], ids=lambda optimizer: optimizer.name
)
def test_weights_gradients_and_state_are_within_2_percent_of_torchs(bert, tmp_path, optimizer):
    bert.save_pretrained(tmp_path)
    expected = estimate(read_model_size(tmp_path), Layout("single", "fp32", 1), optimizer, 0)
    trained = build_optimizer(bert, optimizer)
    bert(input_ids=torch.ones(2, 8, dtype=torch.long), labels=torch.zeros(2, dtype=torch.long)).loss.backward()
    trained.step()
    state = [value for values in trained.state.values() for value in values.values() if torch.is_tensor(value)]
    gradients = [parameter.grad for parameter in bert.parameters() if parameter.grad is not None]
    assert size_of(bert.parameters()) == expected.parameters
    assert size_of(gradients) == pytest.approx(expected.gradients, rel=0.02)
    assert size_of(state) == pytest.approx(expected.optimizer, rel=0.02)
    bert.zero_grad(set_to_none=True)


def test_activations_are_within_25_percent_of_what_autograd_keeps(bert, tmp_path):
    bert.save_pretrained(tmp_path)
    weights = {parameter.untyped_storage().data_ptr() for parameter in bert.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    bert.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = bert(input_ids=torch.ones(SAMPLES, TOKENS, dtype=torch.long), labels=torch.zeros(SAMPLES, dtype=torch.long)).loss
    assert loss.requires_grad
    size = read_model_size(tmp_path)
    expected = activation_bytes(size.transformer, TOKENS, SAMPLES, "fp32", checkpointing=False, keeps_scores=True)
    assert sum(kept.values()) == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("name", MARKERS)
def test_the_table_of_networks_that_mark_pictures_is_right(name):
    from torchvision.models import get_model

    is_detector = name.startswith("fasterrcnn")
    with torch.device("meta"):
        network = get_model(name, weights=None, weights_backbone=None, num_classes=10 + is_detector)
        network = with_frozen_batch_norm(network) if is_detector else network
    assert torchvision_size(name, 10, ()).parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_the_table_of_torchvisions_sizes_is_right(name):
    from torchvision.models import get_model

    with torch.device("meta"):
        network = get_model(name, weights=None, num_classes=10)
    assert torchvision_size(name, 10, ()).parameters == sum(parameter.numel() for parameter in network.parameters())


def test_a_model_without_a_formula_is_counted_on_the_meta_device(bert, tmp_path, capsys):
    from trainers.models.parameter_counts import main

    bert.save_pretrained(tmp_path)
    main(["transformers", str(tmp_path), "--num-labels", "3"])
    shapes = json.loads(capsys.readouterr().out)
    assert sum(math.prod(shape) for shape in shapes.values()) == read_model_size(tmp_path, num_labels=3).parameters


@pytest.mark.parametrize("targets", [None, ["query", "dense"]])
def test_what_lora_adds_and_trains_is_what_peft_does(bert, tmp_path, targets):
    lora = Lora(rank=4, targets=targets)
    bert.base_model.save_pretrained(tmp_path)  # without a head
    model_type, body = read_body(tmp_path)
    size = read_model_size(tmp_path)
    expected = with_adapters(size, body, size.head, lora, model_type)
    adapted = add_adapters(BertForSequenceClassification(bert.config), lora, 0)
    assert (expected.trained, expected.parameters) == count_parameters(adapted)


def test_a_rank_that_torch_would_refuse_is_refused_by_the_shapes_in_the_file(bert, tmp_path):
    bert.base_model.save_pretrained(tmp_path)
    model_type, body = read_body(tmp_path)
    found = with_adapters(read_model_size(tmp_path), body, 0, Lora(rank=129), model_type)
    assert (found.key, found.fix) == ("model.lora.rank", "model.lora.rank=8")
    with pytest.raises(ConfigError, match=re.escape(found.reason.partition(" of ")[0])):
        add_adapters(BertForSequenceClassification(bert.config), Lora(rank=129), 0)
