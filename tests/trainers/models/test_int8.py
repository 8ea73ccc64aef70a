from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from launch.config.errors import ConfigError
from launch.config.run_dir import RunDir
from tests.tiny import tiny_classifier, tiny_sentences
from trainers.export import export
from trainers.models.int8 import INT8_FILE, Int8Embedding, Int8Linear, load_int8, quantize, round_rows, save_int8


def test_the_largest_value_of_each_row_becomes_the_largest_integer_and_none_moves_by_more_than_half_a_step() -> None:
    weight = torch.tensor([[0.5, -1.27, 0.004], [0.0, 0.0, 0.0]])
    scale, rows = round_rows(weight, 127)
    assert rows.tolist() == [[50, -127, 0], [0, 0, 0]]
    assert scale[0].item() == pytest.approx(0.01)
    assert (weight - rows * scale[:, None]).abs().max().item() <= 0.005


def test_a_linear_layer_in_int8_gives_what_the_rounded_integers_give() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 8))
    weight, bias, inputs = network[0].weight.detach().clone(), network[0].bias.detach().clone(), torch.randn(5, 3, 16)
    assert quantize(network) == ["0"]
    scale, rows = round_rows(weight, 63)
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    step = (high - low) / 255  # 8 bits for the inputs
    zero = round(-low / step)
    rounded = ((inputs / step).round() + zero).clamp(0, 255) - zero
    expected = (rounded * step) @ (rows * scale[:, None]).T + bias
    with torch.inference_mode():
        assert torch.allclose(network(inputs), expected, atol=1e-5)


def test_an_embedding_in_int8_gives_its_rounded_rows() -> None:
    network = nn.Sequential(nn.Embedding(4, 2, padding_idx=0))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.0, 0.0], [1.27, -0.6], [0.1, 0.2], [2.54, 1.0]]))
    quantize(network)
    assert isinstance(network[0], Int8Embedding)
    assert torch.allclose(network(torch.tensor([[3, 1]])), torch.tensor([[[2.54, 1.0], [1.27, -0.6]]]))


def test_layers_of_another_class_stay_as_they_are() -> None:
    network = nn.MultiheadAttention(8, 2)  # its output layer is a subclass of Linear whose weight is read from outside
    assert quantize(network) == []


def test_a_quantised_layer_pickles_after_use() -> None:
    network = nn.Sequential(nn.Linear(4, 2))
    quantize(network)
    inputs = torch.ones(1, 4)
    expected = network(inputs)
    assert torch.equal(pickle.loads(pickle.dumps(network))(inputs), expected)


def test_what_is_saved_loads_as_the_same_network(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = tiny_classifier(tmp_path / "bert", ("bad", "good"))
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.tensor([[2, 5, 3]])
    with torch.inference_mode():
        before = network(input_ids=ids).logits
        names = quantize(network)
        quantised = network(input_ids=ids).logits
    assert {"bert.embeddings.word_embeddings", "bert.encoder.layer.1.output.dense", "classifier"} <= set(names)
    (folder / "model.safetensors").unlink()
    path = save_int8(network, folder)
    loaded = load_int8(folder)
    with torch.inference_mode():
        assert torch.equal(loaded(input_ids=ids).logits, quantised)
    assert (quantised - before).abs().max() < 0.02
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    assert path.stat().st_size < sum(tensor.numel() * 4 for tensor in AutoModelForSequenceClassification.from_config(network.config).parameters()) / 2


def test_a_folder_that_export_did_not_write_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"has no {INT8_FILE}"):
        load_int8(tmp_path)


def run_of(folder: Path, **task: Any) -> RunDir:
    """Writes what a finished run of 20 sentences leaves."""
    from trainers.models.pooled import build_pooled

    run, bert = RunDir(folder / "run"), tiny_classifier(folder / "bert")
    values = f"{{kind: text_classification, text: text, label: label, max_length: 16, {', '.join(f'{key}: {value}' for key, value in task.items())}}}"
    run.model.mkdir(parents=True)
    run.resolved.write_text(
        f"name: tiny\nmodel: {{source: {bert}}}\ntask: {values}\n"
        f"data: {{source: {tiny_sentences(folder / 'tiny.tsv', 40)}, splits: {{validation: null}}, validation_fraction: 0.5}}\n"
        "train: {duration: 1 epoch, global_batch_size: 8}\noptimizer: {lr: 0.001}\nevaluate: {metric: accuracy}\n",
        encoding="utf-8",
    )
    shutil.copytree(bert, run.model, dirs_exist_ok=True)
    if "pooling" in task:
        from launch.config.experiment import Model

        (run.model / "model.safetensors").unlink()
        network = build_pooled(Model(source=str(bert)), task["pooling"], ["0", "1"], 0, 0)
        network.save_pretrained(run.model, network.state_dict())
    return run


@pytest.mark.parametrize("task", [{}, {"pooling": "mean"}])
def test_an_export_is_judged_beside_the_original_and_predicts(task: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.models.pooled import load_pooled

    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    run = run_of(tmp_path, **task)
    answer = export(run, tmp_path / "out")
    assert answer["split"] == "validation"
    assert answer["model"]["num_samples"] == answer["int8"]["num_samples"] == 20
    assert answer["int8"]["metrics"]["loss"] == pytest.approx(answer["model"]["metrics"]["loss"], rel=0.05)
    assert answer["int8"]["num_bytes"] < 0.5 * answer["model"]["num_bytes"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "tokenizer.json", "tokenizer_config.json", INT8_FILE}
    loaded = load_int8(tmp_path / "out")
    assert any(isinstance(layer, Int8Linear) for layer in loaded.modules())
    if task:
        assert sum(load_pooled(tmp_path / "out")("good film").values()) == pytest.approx(1.0)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["masked_lm", "causal_lm"])
def test_an_export_of_a_language_model_is_judged_by_its_targets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.config.load import load_experiment
    from launch.config.resolve import resolve
    from tests.tiny_tasks import write_experiment
    from trainers.tasks import build_task

    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    run = RunDir(tmp_path / "run")
    run.model.mkdir(parents=True)
    shutil.copy(write_experiment(name, tmp_path), run.resolved)
    task = build_task(resolve(load_experiment(str(run.resolved))))
    network = task.build_model()
    task.save(network, run.model, network.state_dict())
    answer = export(run, tmp_path / "out")
    assert answer["int8"]["num_samples"] == answer["model"]["num_samples"] > 0
    assert answer["int8"]["metrics"]["perplexity"] == pytest.approx(answer["model"]["metrics"]["perplexity"], rel=0.05)


def test_a_run_that_leaves_no_model_of_transformers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    run = run_of(tmp_path)
    (run.model / "config.json").unlink()
    with pytest.raises(ConfigError, match="text_classification leaves no model of transformers"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "model.safetensors",
            b"torn",
            r"model/model\.safetensors: the weights are damaged: .*\n    try: a copy of the file, or fullrank run .*resolved\.yaml",
        ),
        ("config.json", b'{"architectures": ["Be', r"model/config\.json: is not whole: it holds no JSON object"),
        ("config.json", b'{"architectures": ["Nosuch"]}', r"model/config\.json: architectures: names no class of transformers: \['Nosuch'\]"),
    ],
)
def test_a_damaged_model_is_named_and_nothing_is_left(
    file: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    run = run_of(tmp_path)
    (run.model / file).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_cannot_be_judged_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    run = run_of(tmp_path)

    def refuse(folder: Path) -> Any:
        raise RuntimeError(f"{folder} does not load")

    monkeypatch.setattr("trainers.export.load_int8", refuse)
    with pytest.raises(RuntimeError, match="does not load"):
        export(run, run.int8)
    assert not [path for path in run.path.glob("int8*") if path.is_dir()]


def test_an_export_that_cannot_be_written_is_told_to_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"/proc/export: cannot be written: .*\n    try: --out DIR with room and write permission"):
        export(run_of(tmp_path), Path("/proc/export/int8"))
