"""Text to text: what is prepared, the loss against one by hand, what is written and how that is judged."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from tests.tiny_pairs import tiny_pairs, tiny_t5
from trainers.tasks.seq2seq import PadPairs, Seq2SeqTask, build_task
from trainers.tasks.written_texts import ExactMatch, RougeL
from trainers.texts.tokens import NO_LABEL


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def built(source: Path, **task: Any) -> Seq2SeqTask:
    experiment = Experiment.model_validate(
        {
            "name": "pairs",
            "model": tiny_t5(source.parent / "bert"),
            "task": {"kind": "seq2seq", "max_length": 24, "max_target_length": 6} | task,
            "data": {"source": str(source), "splits": {"validation": None}, "validation_fraction": 0.25},
            "train": {"duration": "1 epoch", "global_batch_size": 8},
            "optimizer": {"lr": 0.01},
        }
    )
    return build_task(experiment)


def batch_of(task: Seq2SeqTask, split: str, count: int) -> dict[str, torch.Tensor]:
    return task.collate([task.dataset(split)[0, index] for index in range(count)])


def test_batches_are_padded_and_what_is_behind_a_target_counts_nothing():
    ids = [torch.tensor([5, 6, 7]).numpy(), torch.tensor([8]).numpy()]
    batch = PadPairs(0)([{"input_ids": ids[0], "targets": ids[1]}, {"input_ids": ids[1], "targets": ids[0]}])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, NO_LABEL, NO_LABEL], [5, 6, 7]]


def test_a_target_ends_with_the_end_token_and_one_that_is_cut_is_counted(tmp_path):
    task = built(tiny_pairs(tmp_path / "pairs.tsv", 40), max_target_length=3)
    end = task.tokenizer.sep_token_id
    targets = [task.dataset("train")[0, index]["targets"].tolist() for index in range(30)]
    assert all(tokens[-1] == end and len(tokens) <= 3 for tokens in targets)
    rows = [line.split("\t")[1].split() for line in (tmp_path / "pairs.tsv").read_text().splitlines()[1:]]
    assert task.notes == [f"{sum(len(words) > 2 for words in rows)} targets cut at task.max_target_length 3"]
    assert task.lengths("train")[0] == len(task.dataset("train")[0, 0]["input_ids"]) + len(targets[0])


def test_targets_that_the_tokenizer_does_not_know_are_counted(tmp_path):
    path = tiny_pairs(tmp_path / "pairs.tsv", 40)
    text = path.read_text().splitlines()[1].partition("\t")[0]
    path.write_text(path.read_text() + f"{text}\tzzz qqq\n{text}\tqqq\n{text}\tgood zzz\n")
    (note,) = built(path, max_target_length=12).notes
    assert re.fullmatch("warning: 2 targets are nothing that the tokenizer of .*bert knows", note)


def test_the_prefix_is_read(tmp_path):
    plain, prefixed = (built(tiny_pairs(tmp_path / "pairs.tsv", 40), prefix=prefix) for prefix in ("", "the film: "))
    assert len(prefixed.dataset("train")[0, 0]["input_ids"]) == len(plain.dataset("train")[0, 0]["input_ids"]) + 3


def test_each_token_is_learned_from_those_before_it(tmp_path):
    task = built(tiny_pairs(tmp_path / "pairs.tsv", 40))
    model: Any = task.build_model().eval()
    batch = batch_of(task, "train", 4)
    loss, count = task.train_loss(model, batch, 0.0)
    expected = 0.0
    for row in range(4):
        target = batch["labels"][row][batch["labels"][row] != NO_LABEL]
        before = torch.cat([torch.tensor([task.collate.pad_token_id]), target[:-1]])[None]
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()][None]
        expected += functional.cross_entropy(model(input_ids=ids, decoder_input_ids=before).logits[0], target, reduction="sum").item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert count.item() == task.batch_count(batch) == int((batch["labels"] != NO_LABEL).sum())
    losses, _, _ = task.evaluate_batch(model, batch)
    assert losses.sum().item() == pytest.approx(expected, rel=1e-5)


def test_what_is_written_has_exact_scores():
    exact, rouge = ExactMatch(), RougeL()
    for metric in (exact, rouge):
        metric.update(["4 7  2 9", "one two four"], ["4 7 2 9", "one three four"])
        metric.update([""], ["one"])
    assert float(exact.compute()) == pytest.approx(1 / 3)
    assert float(rouge.compute()) == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_the_model_writes_what_it_has_learned_and_stops_at_the_end(tmp_path):
    task = built(tiny_pairs(tmp_path / "pairs.tsv", 12))
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batch = batch_of(task, "train", 4)
    for _ in range(120):
        optimizer.zero_grad()
        loss, count = task.train_loss(model, batch, 0.0)
        (loss / count).backward()
        optimizer.step()
    _, _, (written, targets) = task.evaluate_batch(model.eval(), batch)
    assert written == targets
    assert task._decoded(task.write_greedily(model, {name: batch[name] for name in ("input_ids", "attention_mask")})) == written
    shown = task.illustrate(model, "train", lambda batch: batch, None)
    assert shown.startswith("## What the model writes\n\nOf the train split.\n\n| read | target | written |")
    task.save(model, tmp_path / "model", model.state_dict())
    from transformers import AutoModelForSeq2SeqLM

    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert task.tokenizer.batch_decode(again.generate(**given), skip_special_tokens=True) == written


def test_texts_without_targets_are_named_with_their_lines(tmp_path):
    path = tiny_pairs(tmp_path / "pairs.tsv", 10)
    path.write_text(path.read_text() + "a film\t\n\tgood\n")
    with pytest.raises(ConfigError) as error:
        built(path)
    assert f"{path}:12: the target is empty" in str(error.value)
    assert f"{path}:13: the text is empty" in str(error.value)
