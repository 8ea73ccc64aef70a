from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.sizes.model_size import Transformer, UnknownSize, count_layer, read_header, read_model_size

BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def write_config(folder: Path, config: dict) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_tensors(folder: Path, shapes: dict[str, list[int]]) -> None:
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()} | {"__metadata__": {"format": "pt"}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


def test_bert_base_has_its_published_number_of_parameters(tmp_path):
    size = read_model_size(write_config(tmp_path, BERT))
    assert size.parameters == 109_483_778  # 109,482,240 of BertModel, and a head of 2 classes
    assert size.transformer == Transformer(12, 768, 12, 3072)
    assert (size.largest_layer, size.outside_layers) == (7_087_872, 109_483_778 - 12 * 7_087_872)


def test_other_families_have_other_heads(tmp_path):
    roberta = BERT | {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    assert read_model_size(write_config(tmp_path, roberta)).parameters == 124_647_170  # roberta-base as a classifier of 2 classes
    distilbert = {"model_type": "distilbert", "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
    assert read_model_size(write_config(tmp_path, distilbert | {"max_position_embeddings": 512})).parameters == 66_955_010


def test_heads_of_words_and_of_tokens_have_the_published_sizes(tmp_path):
    assert read_model_size(write_config(tmp_path, BERT), head_kind="words").parameters == 109_514_298  # BertForMaskedLM of bert-base-uncased
    assert read_model_size(write_config(tmp_path, BERT), head_kind="tokens").parameters == 108_893_186  # BertForTokenClassification, 2 classes
    distilbert = {"model_type": "distilbert", "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
    folder = write_config(tmp_path, distilbert | {"max_position_embeddings": 512})
    assert read_model_size(folder, head_kind="words").parameters == 66_985_530  # DistilBertForMaskedLM


def test_the_safetensors_header_counts_and_its_old_head_does_not(tmp_path):
    folder = write_config(tmp_path, BERT | {"num_hidden_layers": 1})
    write_tensors(
        folder,
        {
            "bert.embeddings.word_embeddings.weight": [100, 768],
            "bert.embeddings.position_ids": [1, 512],
            "bert.encoder.layer.0.attention.self.query.weight": [768, 768],
            "cls.predictions.bias": [30522],
        },
    )
    size = read_model_size(folder, num_labels=5)
    assert size.parameters == 100 * 768 + 768 * 768 + 768 * 769 + 5 * 769  # the pooler is new, and so is the head
    assert size.largest_layer == 768 * 768


def test_frozen_parameters_are_counted_under_the_names_of_the_whole_model(tmp_path):
    folder = write_config(tmp_path, BERT | {"num_hidden_layers": 1})
    write_tensors(folder, {"embeddings.word_embeddings.weight": [100, 768], "encoder.layer.0.output.dense.weight": [768, 768]})
    size = read_model_size(folder, 2, frozen=["bert.embeddings.*"])
    assert size.parameters - size.trained == 100 * 768


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BERT | {"model_type": "mamba"}, "no formula for models of the type 'mamba'"),
        (BERT | {"hidden_size": None}, "lacks one of num_hidden_layers, hidden_size"),
    ],
)
def test_what_has_no_formula_is_unknown_with_the_reason(tmp_path, config, reason):
    size = read_model_size(write_config(tmp_path, config))
    assert isinstance(size, UnknownSize)
    assert reason in size.reason


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"\xff" * 16, (5).to_bytes(8, "little") + b"[1,2]", (99).to_bytes(8, "little") + b"{}"[:1]])
def test_a_file_that_is_not_safetensors_has_no_header(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert read_header(tmp_path / "model.safetensors") is None


def test_a_layer_is_its_matrices_biases_and_norms():
    assert count_layer(Transformer(12, 768, 12, 3072)) == 7_087_872
