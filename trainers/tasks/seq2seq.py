"""Text to text, by any AutoModelForSeq2SeqLM: targets are learned token by token, and judged by what the model writes on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks.seq2seq import Seq2Seq
from trainers.data_facts import prepare_once, write_facts
from trainers.datasets import divide, load_splits
from trainers.models.pretrained import load_model, load_tokenizer
from trainers.reading.columns import Indices
from trainers.reading.rows import BadRows, Split
from trainers.reports.rendering import escaped, table
from trainers.tasks import Batch
from trainers.texts.tokenising import TEXTS_AT_ONCE, check_positions, is_whole, progress_bar, text_problem, tokenizer_facts
from trainers.texts.tokens import NO_LABEL, ROWS_PER_CHUNK, TokenDataset, write_tokens

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

NUM_SHOWN = 8
"""Texts whose answers the report shows."""
TARGET = "targets"


def build_task(experiment: Experiment) -> Seq2SeqTask:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    return Seq2SeqTask(experiment, *prepare_once(experiment, prepare, is_whole))


class Seq2SeqTask:
    """See trainers.tasks.Task for what each method promises; the loss is a target token's."""

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, Seq2Seq)
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint: str = info["fingerprint"]
        self.label_names: list[str] = []
        self.notes: list[str] = list(info["notes"])
        self.collate = PadPairs(info["pad_token_id"])
        self.options = experiment.task
        self._experiment = experiment
        self._folder = folder
        self._first_token, self._end = info["pad_token_id"], info["end_token_id"]

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(str(self._experiment.model.source))

    def dataset(self, split: str) -> TokenDataset:
        return TokenDataset(self._folder / f"{split}.arrow", self.num_samples[split])

    def lengths(self, split: str) -> Indices:
        """Returns the tokens read and written."""
        samples = self.dataset(split)
        return samples.lengths() + samples.lengths(TARGET)

    def build_model(self) -> nn.Module:
        network: Any = load_model("AutoModelForSeq2SeqLM", self._experiment.model, [], self._experiment.seed, self.collate.pad_token_id)
        known, pad_token_id = network.generation_config, self.collate.pad_token_id
        self._first_token = _first(known.decoder_start_token_id, getattr(network.config, "decoder_start_token_id", None), pad_token_id)
        network.config.decoder_start_token_id = self._first_token
        end = _first(known.eos_token_id, network.config.eos_token_id, self._end)
        known.update(decoder_start_token_id=self._first_token, eos_token_id=end, pad_token_id=pad_token_id)
        known.update(max_length=None, max_new_tokens=self.options.max_target_length)
        return network

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        losses = self._token_losses(model, batch, label_smoothing)
        return losses.sum(), (batch["labels"] != NO_LABEL).sum()

    def batch_count(self, batch: Batch) -> int:
        return int((batch["labels"] != NO_LABEL).sum())

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        return int(batch["attention_mask"].sum()) + self.batch_count(batch), batch["attention_mask"].numel() + batch["labels"].numel()

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[list[str], list[str]]]:
        losses = self._token_losses(model, batch, 0.0).sum(dim=1)
        return losses, (batch["labels"] != NO_LABEL).sum(), (self._written(model, batch), self._decoded(batch["labels"]))

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection

        from trainers.tasks.written_texts import ExactMatch, RougeL

        return MetricCollection({"exact_match": ExactMatch(), "rouge_l": RougeL()}, compute_groups=False)

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        sample = self.dataset(split)[0, index]
        return " → ".join(escaped(self.tokenizer.decode(sample[name].tolist(), skip_special_tokens=True)) for name in ("input_ids", TARGET))

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns a few texts with their targets, and what the model writes."""
        samples, count = self.dataset(split), min(NUM_SHOWN, self.num_samples[split])
        batch = place(self.collate([samples[0, number * self.num_samples[split] // count] for number in range(count)]))
        columns = self._decoded(batch["input_ids"]), self._decoded(batch["labels"]), self._written(model, batch)
        rows = [tuple(map(escaped, row)) for row in zip(*columns, strict=True)]
        return f"## What the model writes\n\nOf the {split} split.\n\n" + table(("read", "target", "written"), rows)

    def save(self, model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)

    def _token_losses(self, model: nn.Module, batch: Batch, label_smoothing: float) -> Tensor:
        """Returns float32 [B, L], 0 behind a target's end."""
        labels = batch["labels"]
        before = labels.masked_fill(labels == NO_LABEL, self.collate.pad_token_id).roll(1, dims=1)
        before[:, 0] = self._first_token
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], decoder_input_ids=before, use_cache=False)
        logits = output.logits.float().transpose(1, 2)
        return functional.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="none", label_smoothing=label_smoothing)

    def _written(self, model: Any, batch: Batch) -> list[str]:
        """Returns what the model writes on its own."""
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        if not any(isinstance(parameter, DTensor) or hasattr(parameter, "ds_id") for parameter in model.parameters()):
            return self._decoded(model.generate(**given, num_beams=self.options.num_beams, do_sample=False))
        if self.options.num_beams > 1:
            raise ConfigError(
                Problem("ranks that divide the parameters write one token after the other", key="task.num_beams", fix="task.num_beams=1")
            )
        return self._decoded(self.write_greedily(model, given))

    def write_greedily(self, model: nn.Module, given: Batch) -> Tensor:
        """Returns the likeliest tokens, int64 [B, L], padded behind the end.

        By whole forward passes, as many on every rank: where ranks divide the parameters, generate() would reach past what gathers them.
        """
        written = torch.full((len(given["input_ids"]), 1), self._first_token, device=given["input_ids"].device)
        for _ in range(self.options.max_target_length):
            best = model(**given, decoder_input_ids=written, use_cache=False).logits[:, -1].argmax(dim=-1)
            written = torch.cat([written, best[:, None]], dim=1)
        ended = (written[:, 1:] == self._end).cumsum(dim=1)
        return written[:, 1:].masked_fill(ended > 0, self.collate.pad_token_id)

    def _decoded(self, tokens: Tensor) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(tokens.masked_fill(tokens == NO_LABEL, self.collate.pad_token_id), skip_special_tokens=True)
        return texts


class PadPairs:
    """Collates samples into input_ids and attention_mask, int64 [B, T], and labels, int64 [B, L], NO_LABEL behind a target's end."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids, targets = ([torch.from_numpy(sample[name].astype(np.int64)) for sample in samples] for name in ("input_ids", TARGET))
        pad = torch.nn.utils.rnn.pad_sequence
        mask = pad([torch.ones_like(tokens) for tokens in ids], batch_first=True)
        return {"input_ids": pad(ids, True, self.pad_token_id), "attention_mask": mask, "labels": pad(targets, True, NO_LABEL)}


def prepare(experiment: Experiment, folder: Path) -> None:
    """Reads, checks and tokenises every split, and writes them into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad row.
    """
    options, data, source = experiment.task, experiment.data, experiment.model.source
    assert isinstance(options, Seq2Seq)
    assert source is not None
    bad_rows = BadRows(data.on_bad_row)
    tokenizer = load_tokenizer(source)
    if experiment.model.config is None:
        check_positions("task.max_length", options.max_length, source, tokenizer)
    end = _first(tokenizer.eos_token_id, tokenizer.sep_token_id)
    if end is None:
        raise ConfigError(Problem(f"the tokenizer of {source} has no token for the end of a text", key="model.source"))
    splits = load_splits(data, {options.text: "task.text", options.target: "task.target"}, bad_rows)
    usable = {name: _usable(split, options, bad_rows) for name, split in splits.items()}
    bad_rows.check()
    rows = divide(usable, data, experiment.seed)
    num_cut, num_unknown, num_samples = 0, 0, {}
    for name, split in rows.items():
        pairs = _Tokenised(split, options, tokenizer, end)
        num_samples[name] = write_tokens(folder / f"{name}.arrow", iter(pairs))
        num_cut, num_unknown = num_cut + pairs.num_cut, num_unknown + pairs.num_unknown
    notes = [f"{num_cut} targets cut at task.max_target_length {options.max_target_length}"] if num_cut else []
    notes += [f"warning: {num_unknown} targets are nothing that the tokenizer of {source} knows"] if num_unknown else []
    write_facts(folder, num_samples, notes, bad_rows, end_token_id=end, **tokenizer_facts(tokenizer))


class _Tokenised:
    """Chunks of token numbers, read and written; counts the targets that were cut, and those of unknown tokens alone or of none."""

    def __init__(self, split: Split, options: Seq2Seq, tokenizer: Any, end: int) -> None:
        self._split, self._options, self._tokenizer, self._end = split, options, tokenizer, end
        self.num_cut = self.num_unknown = 0

    def __iter__(self) -> Iterator[dict[str, list[Any]]]:
        options, tokenizer, columns = self._options, self._tokenizer, self._split.columns
        room = options.max_target_length - 1
        plain: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        with progress_bar(len(self._split)) as bar:
            for start in range(0, len(self._split), ROWS_PER_CHUNK):
                chunk: dict[str, list[Any]] = {"input_ids": [], TARGET: []}
                stop = min(start + ROWS_PER_CHUNK, len(self._split))
                for part in (slice(first, min(first + TEXTS_AT_ONCE, stop)) for first in range(start, stop, TEXTS_AT_ONCE)):
                    texts = [options.prefix + text for text in columns[options.text][part]]
                    chunk["input_ids"] += tokenizer(texts, truncation=True, max_length=options.max_length, **plain)["input_ids"]
                    targets = tokenizer(list(columns[options.target][part]), add_special_tokens=False, **plain)["input_ids"]
                    self.num_cut += sum(len(tokens) > room for tokens in targets)
                    self.num_unknown += sum(set(tokens) <= {tokenizer.unk_token_id} for tokens in targets)
                    chunk[TARGET] += [[*tokens[:room], self._end] for tokens in targets]
                    bar.update(part.stop - part.start)
                yield chunk


def _usable(split: Split, options: Seq2Seq, bad_rows: BadRows) -> Split:
    """Returns the rows that have both texts."""
    usable = np.ones(len(split), bool)
    for column in (options.text, options.target):
        for index, text in enumerate(split.columns[column]):
            problem = text_problem(column, text)
            if problem is not None:
                bad_rows.add(split.place(index), problem)
                usable[index] = False
    return split.select(np.flatnonzero(usable))


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
