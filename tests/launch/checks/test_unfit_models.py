"""Models that cannot be loaded, or not for the task, are told before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.checks.unfit_models import find_unfit_models
from launch.config.load import load_experiment
from launch.config.sources import LocalPath, parse_source

CONFIG = {"model_type": "bert", "num_hidden_layers": 12, "max_position_embeddings": 512}


def write_weights(path: Path) -> Path:
    """Writes a safetensors file of two numbers."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a model's folder as whole as the checks see."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_weights(folder / "model.safetensors")
    return folder


def unfit(folder: Path, *overrides: str, name: str = "bert_sst2") -> str:
    experiment = load_experiment(name, (f"model.source={folder}", *overrides)).experiment
    others = {key: parse_source(text, key) for key, text in experiment.task.sources().items()}
    return "\n".join(map(str, find_unfit_models(experiment, LocalPath(folder), others)))


def test_folder_without_a_configuration_is_no_model(folder: Path, tmp_path: Path) -> None:
    assert unfit(folder) == ""
    assert unfit(tmp_path / "nowhere") == ""  # what is missing is told by its own check
    (folder / "config.json").unlink()
    found = f"{folder} is not a model's folder: it has no config.json"
    assert unfit(folder).startswith(f"model.source: {found}")
    assert f"task.teacher: {found}" in unfit(folder, f"task.teacher={folder}", name="distill")


@pytest.mark.parametrize(
    ("name", "size", "found"),
    [
        ("config.json", 20, "is no JSON, or only the beginning of it (20 bytes)"),
        ("config.json", 0, "is no JSON, or only the beginning of it (0 bytes)"),
        ("model.safetensors", -1, "is cut off: "),
        ("model.safetensors", 20, "is no safetensors file, or only the beginning of one (20 bytes)"),
    ],
)
def test_file_that_is_cut_off_is_told_of_a_model_and_of_a_teacher(folder: Path, tmp_path: Path, name: str, size: int, found: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:size])
    assert f"model.source: {folder / name} {found}" in unfit(folder)
    assert f"task.teacher: {folder / name} {found}" in unfit(tmp_path / "nowhere", f"task.teacher={folder}", name="distill")
    assert unfit(folder, "model.config={model_type: bert}", name="bert_mlm") == ""  # of the source its tokenizer alone


def test_weights_that_are_missing_are_told(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert f"model.source: {folder} has no weights" in unfit(folder)
    write_weights(folder / "model-00001-of-00002.safetensors")
    of_names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": of_names}))
    assert f"model.source: {folder} lacks model-00002-of-00002.safetensors, part of the weights" in unfit(folder)
    write_weights(folder / "model-00002-of-00002.safetensors")
    assert unfit(folder) == ""


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ("[nosuch.*]", "'nosuch.*' matches no parameter"),
        ("[bert.a, bert.b]", "'bert.b' matches no parameter"),
        ("[bert.*, classifier.*, '*.bias']", ""),  # heads are made later
    ],
)
def test_what_is_frozen_is_in_the_body(folder: Path, patterns: str, found: str) -> None:
    told = unfit(folder, f"model.freeze={patterns}")
    assert found in told if found else told == ""
    assert unfit(folder, f"model.freeze={patterns}", "model.config={model_type: bert}", name="bert_mlm") == ""


@pytest.mark.parametrize(("name", "key"), [("bert_sst2", "max_length"), ("bert_mlm", "block_size"), ("ner", "max_length"), ("distill", "max_length")])
def test_more_tokens_than_positions_are_refused(folder: Path, name: str, key: str) -> None:
    assert f"task.{key}: 513 tokens, but the model {folder} reads at most 512\n    try: task.{key}=512" in unfit(folder, f"task.{key}=513", name=name)
    assert unfit(folder, f"task.{key}=512", name=name) == ""
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 256}')
    assert f"try: task.{key}=256" in unfit(folder, f"task.{key}=512", name=name)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ("[0, 2]", ""),
        ("[0, 12]", "task.layers: model.source has no layer 12\n    allowed: some of 0 to 11, each once"),
        ("[0, 0, 2]", "task.layers: a layer stands there twice\n    allowed: some of 0 to 11, each once"),
    ],
)
def test_layers_of_a_student_are_those_of_its_source(folder: Path, layers: str, found: str) -> None:
    assert unfit(folder, f"task.layers={layers}", f"task.teacher={folder}", name="distill") == found


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("{model_type: gpt2, n_layer: 4}", ""),
        ("{model_type: xlm-roberta, num_hidden_layers: 2, pad_token_id: -1}", ""),
        ("{model_type: nosuch}", "model.config.model_type: transformers has no model type 'nosuch'\n    allowed: gpt2, bert, ..."),
        ("{model_type: bert, num_hidden_layers: -2}", "model.config.num_hidden_layers: num_hidden_layers is -2\n    allowed: a number above 0"),
    ],
)
def test_configuration_that_no_model_has_is_refused(folder: Path, config: str, found: str) -> None:
    assert unfit(folder, f"model.config={config}", name="bert_mlm") == found
