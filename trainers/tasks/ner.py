"""Named entity recognition: a tag for each word, judged by the names that the tags mark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks import Ner
from trainers.data_facts import prepare_once, write_facts
from trainers.datasets import divide, load_splits
from trainers.models.pretrained import load_model, load_tokenizer
from trainers.reading.columns import Indices
from trainers.reading.rows import BadRows, Split
from trainers.reports.rendering import escaped, table
from trainers.tasks import Batch
from trainers.texts.entities import EntityConfusion, EntityF1, EntityPrecision, EntityRecall, Span, confusion, find_spans, tag_names
from trainers.texts.tagged_words import Tags, read_tags
from trainers.texts.tokenising import TEXTS_AT_ONCE, check_positions, is_whole, progress_bar, tokenizer_facts
from trainers.texts.tokens import NO_LABEL, ROWS_PER_CHUNK, PadTokens, TokenDataset, write_tokens

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

NUM_SHOWN = 12
"""Sentences that the report shows."""


def build_task(experiment: Experiment) -> NerTask:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    return NerTask(experiment, *prepare_once(experiment, prepare, is_whole))


class NerTask:
    """See trainers.tasks.Task for what each method promises.

    A batch has input_ids and attention_mask, int64 [B, T]; labels, int64 [B, T]: the tag of each word at its first piece, -100 elsewhere;
    words, int64 [B, T]: the word's place in the sentence at its first piece, -100 elsewhere; tags, int64 [B, W]: of all words, -100 is padding.
    """

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint = info.get("fingerprint")
        self.types: list[str] = info["types"]
        self.label_names = [*self.types, "no name"]
        self.notes: list[str] = info["notes"]
        self.collate = PadTokens(info["pad_token_id"], info["padding_side"])
        self._experiment, self._folder = experiment, folder

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(str(self._experiment.model.source))

    def dataset(self, split: str) -> TokenDataset:
        return TokenDataset(self._folder / f"{split}.arrow", self.num_samples[split])

    def lengths(self, split: str) -> Indices:
        return self.dataset(split).lengths()

    def build_model(self) -> nn.Module:
        model, seed = self._experiment.model, self._experiment.seed
        return load_model("AutoModelForTokenClassification", model, tag_names(self.types), seed, self.collate.pad_token_id)

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        logits, labels = _logits(model, batch), batch["labels"]
        loss_sum = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=label_smoothing)
        return loss_sum, (labels != NO_LABEL).sum()

    def batch_count(self, batch: Batch) -> int:
        return int((batch["labels"] != NO_LABEL).sum())

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        return int(batch["attention_mask"].sum()), batch["attention_mask"].numel()

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Returns the losses summed over each sentence's words, how many words they cover, and the confusion of the batch's names."""
        logits, labels = _logits(model, batch), batch["labels"]
        losses = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(dim=1)
        counts = sum((confusion(true, found, len(self.types)) for true, found in _judged(batch, logits)), start=confusion([], [], len(self.types)))
        return losses, (labels != NO_LABEL).sum(), (counts.to(labels.device),)

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection

        kinds = {"f1": EntityF1, "precision": EntityPrecision, "recall": EntityRecall, "confusion_matrix": EntityConfusion}
        return MetricCollection({name: kind(len(self.types)) for name, kind in kinds.items()})

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns a table of the first sentences with names: what is there, and what the model found."""
        dataset = self.dataset(split)
        with_names = (n for n in range(self.num_samples[split]) if dataset[0, n]["tags"].any())
        samples = [dataset[0, n] for n, _ in zip(with_names, range(NUM_SHOWN), strict=False)]
        if not samples:
            return ""
        batch = place(self.collate(samples))
        rows = [self._shown(sample, *found) for sample, found in zip(samples, _judged(batch, _logits(model, batch)), strict=True)]
        legend = f"The first sentences of the {split} split that have names. **Bold**: found, words and type. ~~Struck~~: found, and not so."
        return f"## Names\n\n{legend}\n\n" + table(("sentence", "names", "the model's"), rows)

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        return escaped(" ".join(self._words(self.dataset(split)[0, index])))

    def save(self, model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        model.save_pretrained(folder, state_dict=weights)
        self._tokenizer.save_pretrained(folder)

    def _shown(self, sample: dict[str, Any], true: list[Span], found: list[Span]) -> tuple[str, str, str]:
        words = self._words(sample)

        def names(spans: Sequence[Span]) -> Iterator[tuple[Span, str]]:
            return ((span, f"{escaped(' '.join(words[span.start : span.end]))} ({escaped(self.types[span.kind])})") for span in spans)

        guesses = [f"**{name}**" if span in true else f"~~{name}~~" for span, name in names(found)]
        return escaped(" ".join(words)), ", ".join(name for _, name in names(true)), ", ".join(guesses) or "none"

    def _words(self, sample: dict[str, Any]) -> list[str]:
        """Returns the sentence's words as the model read them; a word that was cut off, or has no pieces, is an ellipsis."""
        words, ids = ["…"] * len(sample["tags"]), sample["input_ids"].tolist()
        starts = [(place, word) for place, word in enumerate(sample["words"].tolist()) if word != NO_LABEL]
        for (start, word), (end, _) in zip(starts, [*starts[1:], (len(ids), 0)], strict=True):
            words[word] = self._tokenizer.decode(ids[start:end], skip_special_tokens=True)
        return words


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """Returns float32 [B, T, C]."""
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()


def _judged(batch: Batch, logits: Tensor) -> Iterator[tuple[list[Span], list[Span]]]:
    """Yields each sentence's names and what was found; a word that the model did not see is outside of all it finds."""
    guesses, words, tags = (tensor.cpu() for tensor in (logits.argmax(dim=-1), batch["words"], batch["tags"]))
    for row in range(len(tags)):
        true = tags[row][tags[row] != NO_LABEL]
        seen = words[row] != NO_LABEL
        found = torch.zeros_like(true)
        found[words[row][seen]] = guesses[row][seen]
        yield find_spans(true.tolist()), find_spans(found.tolist())


def prepare(experiment: Experiment, folder: Path) -> None:
    """Reads, checks and tokenises every split, and writes them into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad row.
    """
    options, data, source = experiment.task, experiment.data, experiment.model.source
    assert isinstance(options, Ner)
    assert source is not None
    bad_rows = BadRows(data.on_bad_row)
    tokenizer = load_tokenizer(source)
    if not tokenizer.is_fast:
        raise ConfigError(Problem(f"the tokenizer of {source} does not say which piece belongs to which word", key="model.source"))
    check_positions("task.max_length", options.max_length, source, tokenizer)
    splits = load_splits(data, {options.tokens: "task.tokens", options.tags: "task.tags"}, bad_rows)
    tags = read_tags(splits, options, bad_rows)
    bad_rows.check()
    rows = divide({name: _usable(split, options.tags, tags.numbers[name]) for name, split in splits.items()}, data, experiment.seed)
    cut = _Cut()
    num_samples = {name: write_tokens(folder / f"{name}.arrow", _tokenised(split, options, tokenizer, cut)) for name, split in rows.items()}
    notes = [*tags.notes, *cut.notes(options.max_length), *_missing_types(rows["train"].columns[options.tags], tags)]
    judged = {name: split.columns[options.tags] for name, split in rows.items() if name != "train"}
    notes += [f"warning: no sentence of the {name} split has a name: f1 is 0 there" for name, found in judged.items() if not any(map(any, found))]
    write_facts(folder, num_samples, notes, bad_rows, types=tags.types, **tokenizer_facts(tokenizer))


class _Cut:
    """Counts the words that the model will not see."""

    def __init__(self) -> None:
        self.num_sentences = self.num_words = 0

    def add(self, num_unseen: int) -> None:
        self.num_sentences += num_unseen > 0
        self.num_words += num_unseen

    def notes(self, max_length: int) -> list[str]:
        if not self.num_words:
            return []
        what = f"{self.num_words} words of {self.num_sentences} sentences are not read: beyond {max_length} tokens, or unknown to the tokenizer"
        return [f"{what}; names there count as missed"]


def _usable(split: Split, column: str, numbers: Sequence[list[int] | None]) -> Split:
    numbered = replace(split, columns={**split.columns, column: numbers})
    return numbered.select(np.flatnonzero([row is not None for row in numbers]))


def _missing_types(rows: Sequence[list[int]], tags: Tags) -> list[str]:
    """Returns a warning if no sentence to train on has a name of some type."""
    present = {(tag - 1) // 2 for row in rows for tag in row if tag}
    missing = [name for number, name in enumerate(tags.types) if number not in present]
    return [f"warning: no sentence to train on has a name of the type {' or '.join(missing)}"] if missing else []


def _tokenised(split: Split, options: Ner, tokenizer: Any, cut: _Cut) -> Iterator[dict[str, list[Any]]]:
    """Yields chunks of token numbers, and beside them the tag and the place of the word that begins with a token."""
    with progress_bar(len(split)) as bar:
        for start in range(0, len(split), ROWS_PER_CHUNK):
            end = min(start + ROWS_PER_CHUNK, len(split))
            chunk: dict[str, list[Any]] = {"input_ids": [], "labels": [], "words": [], "tags": list(split.columns[options.tags][start:end])}
            for part in (slice(first, min(first + TEXTS_AT_ONCE, end)) for first in range(start, end, TEXTS_AT_ONCE)):
                encoded = tokenizer(
                    list(split.columns[options.tokens][part]),
                    is_split_into_words=True,
                    truncation=True,
                    max_length=options.max_length,
                    return_attention_mask=False,
                    return_token_type_ids=False,
                )
                chunk["input_ids"] += encoded["input_ids"]
                for row, tags in enumerate(split.columns[options.tags][part]):
                    words = first_pieces(encoded.word_ids(row))
                    chunk["words"].append(words)
                    chunk["labels"].append([NO_LABEL if word == NO_LABEL else tags[word] for word in words])
                    cut.add(len(tags) - sum(word != NO_LABEL for word in words))
                bar.update(part.stop - part.start)
            yield chunk


def first_pieces(word_ids: Sequence[int | None]) -> list[int]:
    """Returns a word's place at its first piece, -100 at its other pieces and at special tokens."""
    before = [None, *word_ids]
    return [word if word is not None and word != previous else NO_LABEL for previous, word in zip(before, word_ids, strict=False)]
