"""Masked and causal language modelling: equal losses however texts fill the rows, heads that compute targets alone, bad inputs by their place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from launch.config.errors import ConfigError
from launch.config.load import load_experiment
from launch.config.resolve import resolve
from tests.tiny import tiny_bert, tiny_rows
from trainers.tasks import build_task
from trainers.tasks.perplexity import Perplexity
from trainers.texts.tokens import NO_LABEL

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def built(folder: Path, source: Path, kind: str = "masked_lm", data: dict[str, Any] | None = None, **task: Any) -> Any:
    """Returns the task of 50 short texts, one a line, with a blank line between."""
    lines = folder / "lines.txt"
    if not lines.is_file():
        lines.write_text("\n\n".join(text for text, _ in tiny_rows(50)) + "\n", encoding="utf-8")
    values = {
        "name": "lm",
        "model": {"source": str(source), "dropout": 0.0} | ({"config": GPT2} if kind == "causal_lm" else {}),
        "task": {"kind": kind, "block_size": 32} | task,
        "data": {"source": str(lines), "splits": {"validation": None}} | (data or {}),
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }
    path = folder / "lm.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return build_task(resolve(load_experiment(str(path))))


def whole_loss(task: Any, model: Any) -> tuple[float, int, int]:
    """Returns the loss of the train split, its targets, and the tokens that were computed."""
    samples = [task.dataset("train")[0, index] for index in range(task.num_samples["train"])]
    batch = task.collate(samples)
    with torch.no_grad():
        loss, count = task.train_loss(model.eval(), batch, 0.0)
    assert int(count) == task.batch_count(batch)
    return float(loss), int(count), task.batch_size_stats(batch)[1]


def test_packed_rows_lose_what_single_rows_lose_and_compute_far_less(bert: Path, tmp_path: Path) -> None:
    single, packed = built(tmp_path, bert, "causal_lm", rows="single"), built(tmp_path, bert, "causal_lm", rows="packed")
    padded_loss, count, padded = whole_loss(single, single.build_model())
    packed_loss, same_count, computed = whole_loss(packed, packed.build_model())
    assert count == same_count
    assert packed_loss / count == pytest.approx(padded_loss / count, abs=1e-5)
    assert computed < 0.75 * padded
    assert packed.num_samples["train"] < 0.5 * single.num_samples["train"]


def test_a_model_of_a_configuration_begins_at_the_loss_of_guessing_blindly(bert: Path, tmp_path: Path) -> None:
    task = built(tmp_path, bert, "causal_lm")
    model = task.build_model()
    loss, count, _ = whole_loss(task, model)
    assert loss / count == pytest.approx(math.log(len(task.tokenizer)), abs=0.1)
    assert (model.config.vocab_size, model.config.n_layer) == (len(task.tokenizer), 2)


def test_the_head_sees_the_targets_alone_and_the_loss_is_that_of_all_logits(bert: Path, tmp_path: Path) -> None:
    task = built(tmp_path, bert, rows="single")
    model = task.build_model().eval()
    batch = task.collate([task.dataset("train")[0, index] for index in range(8)])
    logits = task.logits(model, batch)
    assert logits.shape == (task.batch_count(batch), len(task.tokenizer))
    whole = model(input_ids=batch["input_ids"], attention_mask=(batch["segments"] > 0).long()).logits
    torch.testing.assert_close(logits, whole[batch["targets"] != NO_LABEL])


def test_a_head_without_weights_is_new_and_said_to_be(bert: Path, tmp_path: Path) -> None:
    task = built(tmp_path, bert)
    before = list(task.notes)
    task.build_model()
    assert len(task.notes) == len(before) + 1
    assert "has no weights for cls.predictions" in task.notes[-1]


def test_notes_say_how_many_rows_the_texts_fill(bert: Path, tmp_path: Path) -> None:
    task = built(tmp_path, bert)
    lengths = task.rows("train").lengths()
    assert task.notes == [
        f"train: 50 texts of {sum(lengths)} tokens in {len(lengths)} rows of at most 32",
        "a step is 8 rows of at most 32 tokens: 256",
    ]
    assert sum(lengths) / (32 * len(lengths)) > 0.9


def test_what_was_pre_trained_is_where_fine_tuning_begins(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    task = built(tmp_path, bert)
    model = task.build_model()
    task.save(model, tmp_path / "model", model.state_dict())
    tuned = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", num_labels=2)
    torch.testing.assert_close(tuned.bert.encoder.state_dict(), model.bert.encoder.state_dict())
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_what_the_model_makes_of_some_rows_is_shown(bert: Path, tmp_path: Path) -> None:
    for kind, heading in (("masked_lm", "## What the model guesses"), ("causal_lm", "## What the model writes")):
        task = built(tmp_path, bert, kind)
        with torch.no_grad():
            shown = task.illustrate(task.build_model().eval(), "train", dict, None)
        assert shown.splitlines()[0] == heading
        assert len(shown.splitlines()) == 2 + 2 + 5


def test_perplexity_is_the_exponential_of_the_mean_loss_over_all_batches() -> None:
    metric = Perplexity()
    for loss, count in ((3.0, 2), (5.0, 6)):
        metric.update(torch.tensor(loss), torch.tensor(count))
    assert float(metric.compute()) == pytest.approx(math.e)


@pytest.mark.parametrize(
    ("lines", "data", "said"),
    [
        ("good\nbad \xff\n", {}, r"lines.txt:2: bytes that are not utf-8"),
        ("good\n", {"columns": ["text"]}, r"lines.txt: data.columns: lines of text have one column, which is called text"),
        ("\n\n", {}, r"lines.txt: data.splits.train: the train split has no samples"),
        ("good\n", {"format": "csv"}, r"lines.txt: task.text: there is no column 'text'"),
    ],
)
def test_bad_lines_are_named_by_their_place(lines: str, data: dict[str, Any], said: str, bert: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(lines.encode("latin-1"))
    with pytest.raises(ConfigError, match=said):
        built(tmp_path, bert, data=data)


def test_a_row_longer_than_the_models_positions_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.block_size: 65 tokens, but the model .* reads at most 64"):
        built(tmp_path, bert, block_size=65)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "gpt3"}, r"model.config.model_type: transformers has no model type 'gpt3'"),
        ({"model_type": "gpt2", "n_layers": 2}, r"model.config.n_layers: a configuration of gpt2 has no 'n_layers'; did you mean 'n_layer'\?"),
        ({"n_layer": 2}, r"model.config: does not say which type of model"),
    ],
)
def test_a_configuration_that_is_none_is_refused(config: dict[str, Any], said: str, bert: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(globals(), "GPT2", config)
    with pytest.raises(ConfigError, match=said):
        built(tmp_path, bert, "causal_lm").build_model()
