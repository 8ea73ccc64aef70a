from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL_IN_PEFT
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from launch.config.errors import ConfigError
from launch.config.experiment import Lora
from launch.config.lora import USUAL_TARGETS
from trainers.checkpoints.restoring import find_misfit, restore_weights
from trainers.models.lora import AdapterFiles, add_adapters, new_modules

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IDS = torch.arange(3, 13).reshape(2, 5)


def bert(**changes: Any) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=16, **(SIZES | changes))).eval()


def trained(model: nn.Module) -> list[str]:
    return [name.removeprefix("base_model.model.") for name, parameter in model.named_parameters() if parameter.requires_grad]


def moved(model: nn.Module) -> nn.Module:
    """Every trained number is another one, as after a training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def saving(model: Any, folder: Path, weights: Any) -> None:
    model.save_pretrained(folder, state_dict=weights)


def test_query_value_and_the_head_are_trained_and_nothing_else() -> None:
    model = add_adapters(bert(num_hidden_layers=1), Lora(rank=2), seed=0)
    layer = "bert.encoder.layer.0.attention.self"
    assert trained(model) == [
        *(f"{layer}.{which}.lora_{matrix}.default.weight" for which in ("query", "value") for matrix in "AB"),
        "classifier.modules_to_save.default.weight",
        "classifier.modules_to_save.default.bias",
    ]
    assert torch.equal(model(IDS).logits, bert(num_hidden_layers=1)(IDS).logits)  # nothing has changed before the first step


def test_adapters_are_drawn_from_the_seed_alone() -> None:
    name = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.default.weight"
    drawn = []
    for state, seed in enumerate((5, 5, 6)):
        model = bert()
        torch.manual_seed(state)
        drawn.append(add_adapters(model, Lora(), seed).state_dict()[name])
        assert torch.initial_seed() == state
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_target_that_is_no_layer_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError) as refusal:
        add_adapters(bert(), Lora(targets=["query", "q_proj", "classifier"]), seed=0)
    assert [problem.what for problem in refusal.value.problems] == [
        "'q_proj' is no linear layer of BertForSequenceClassification",
        "'classifier' is no linear layer of BertForSequenceClassification",
    ]
    assert refusal.value.problems[0].allowed == "query, key, value, dense"


def test_a_rank_above_the_smaller_side_of_a_matrix_is_refused_with_the_matrix() -> None:
    assert add_adapters(bert(), Lora(rank=16), seed=0) is not None
    with pytest.raises(ConfigError) as refusal:
        add_adapters(bert(), Lora(rank=17), seed=0)
    assert str(refusal.value).splitlines() == [
        "model.lora.rank: 17 is above the smaller side of bert.encoder.layer.0.attention.self.query, 16 x 16: no change of it has a higher rank",
        "    allowed: 1 to 16",
        "    try: model.lora.rank=8",
    ]


def test_a_network_without_usual_layers_is_refused_with_what_there_is() -> None:
    network = ResNetForImageClassification(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]))
    with pytest.raises(ConfigError, match="nobody knows the usual layers of a model of the type 'resnet'"):
        add_adapters(network, Lora(), seed=0)


def test_a_network_that_is_not_of_transformers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.lora: Linear is no model of transformers"):
        add_adapters(nn.Linear(2, 2), Lora(), seed=0)


def test_the_head_of_a_model_for_pictures_is_trained_too() -> None:
    model = add_adapters(ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_labels=3, **SIZES)), Lora(), seed=0)
    assert [name for name in trained(model) if "lora" not in name] == [
        "classifier.modules_to_save.default.weight",
        "classifier.modules_to_save.default.bias",
    ]


def test_layers_inside_a_head_get_no_adapter() -> None:
    network = RobertaForSequenceClassification(RobertaConfig(vocab_size=20, max_position_embeddings=16, **SIZES))
    model = add_adapters(network, Lora(targets=["dense"]), seed=0)
    assert not [name for name in trained(model) if "classifier" in name and "lora" in name]
    assert len([name for name in trained(model) if "classifier" in name]) == 4


def test_what_the_source_lacks_is_trained_and_a_head_of_words_is_not() -> None:
    model: Any = bert()
    model.new_tensors = ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight"]
    assert new_modules(model) == ["classifier", "bert.pooler.dense"]
    assert new_modules(BertForMaskedLM(BertConfig(vocab_size=20, **SIZES))) == []


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PeftModel.from_pretrained asks for it
def test_the_result_is_the_merged_model_and_the_adapter_beside_it(tmp_path: Path) -> None:
    model = add_adapters(bert(), Lora(rank=4, alpha=3.0), seed=0)
    files = AdapterFiles(SimpleNamespace(save=saving), model)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in moved(model).state_dict().items()}
    files.export(model, tmp_path / "model", model.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    logits = model(IDS).logits
    whole, report = BertForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert (whole.eval()(IDS).logits - logits).abs().max() < 1e-6
    adapted = PeftModel.from_pretrained(bert(), tmp_path / "model" / "adapter").eval()
    assert torch.equal(adapted(IDS).logits, logits)


def test_a_checkpoint_holds_the_adapter_alone_and_restores_every_bit(tmp_path: Path) -> None:
    model, other = (add_adapters(bert(), Lora(rank=4), seed=0) for _ in range(2))
    files = AdapterFiles(SimpleNamespace(save=saving), other)  # type: ignore[arg-type]
    files.write(moved(model), tmp_path, model.state_dict())
    saved = files.open(tmp_path)
    assert sorted(saved.shapes) == sorted(f"base_model.model.{name}" for name in trained(model))
    assert find_misfit(saved, other) is None
    restore_weights(saved, other)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_another_foundation_has_another_fingerprint() -> None:
    models = [add_adapters(bert(), Lora(), seed=seed) for seed in (0, 1, 0)]
    with torch.no_grad():
        next(parameter for parameter in models[2].parameters() if not parameter.requires_grad)[0, 0] += 1e-6
    prints = [AdapterFiles(SimpleNamespace(), model).foundation for model in models]  # type: ignore[arg-type]
    assert prints[0] == prints[1] != prints[2]


def test_the_usual_layers_are_those_of_peft() -> None:
    assert {kind: USUAL_IN_PEFT[kind] for kind in USUAL_TARGETS if kind in USUAL_IN_PEFT} == {
        kind: list(targets) for kind, targets in USUAL_TARGETS.items() if kind in USUAL_IN_PEFT
    }
