"""What tasks of one target a text, or a pair of texts, share: preparation, batches, the model, what is shown and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks.texts import Pooling, TextsSection
from trainers.data_facts import prepare_once, write_facts
from trainers.datasets import divide, load_splits
from trainers.models.first_token import read_first_token
from trainers.models.pooled import build_pooled
from trainers.models.pretrained import load_model, load_tokenizer
from trainers.reading.columns import Indices
from trainers.reading.rows import BadRows, Split
from trainers.reports.rendering import escaped
from trainers.tasks import Batch
from trainers.tasks.labels import Labels, missing_classes, single_values
from trainers.texts.packing import first_position, pack, prove_packed_texts
from trainers.texts.tokenising import TEXTS_AT_ONCE, check_positions, is_whole, progress_bar, text_problem, tokenizer_facts
from trainers.texts.tokens import ROWS_PER_CHUNK, PadTokens, TokenDataset, write_tokens

ReadLabels = Callable[[Mapping[str, Split], BadRows], Labels]


class TextsTask:
    """The half of trainers.tasks.Task that does not depend on what is learned from the texts."""

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, TextsSection)
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint = info.get("fingerprint")
        self.label_names: list[str] = info["label_names"]
        self.notes: list[str] = info["notes"]
        self.collate = PadTokens(info["pad_token_id"], info["padding_side"])
        self._experiment, self._options = experiment, experiment.task
        self._folder = folder
        self._first_position: int | None = None  # of a packed text, once the model is known to keep them apart

    @property
    def pooling(self) -> Pooling | None:
        return self._options.pooling

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(str(self._experiment.model.source))

    def dataset(self, split: str) -> TokenDataset:
        return TokenDataset(self._folder / f"{split}.arrow", self.num_samples[split])

    def lengths(self, split: str) -> Indices:
        return self.dataset(split).lengths()

    def build_model(self) -> nn.Module:
        """Returns the library's own model for sequences, or the body with a linear layer on the vector that task.pooling names."""
        model, seed, pad_token_id = self._experiment.model, self._experiment.seed, self.collate.pad_token_id
        if self._options.pooling is not None:
            return build_pooled(model, self._options.pooling, self.label_names, seed, pad_token_id)
        network: Any = load_model("AutoModelForSequenceClassification", model, self.label_names or ["value"], seed, pad_token_id)
        if not self.label_names:
            network.config.problem_type = "regression"  # for the library's pipelines; the loss is ours
        read_first_token(network)
        if self._options.packing:
            prove_packed_texts(network, len(self._tokenizer))
            self._first_position = first_position(network)
        return network

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns float32 [B, C], or [B, 1] for a value."""
        inputs: dict[str, Any] = {name: tensor for name, tensor in batch.items() if name != "labels"}
        if self._first_position is not None:
            inputs = pack(inputs, self._first_position)
        return model(**inputs).logits.float()

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        num_real = int(batch["attention_mask"].sum())
        return num_real, num_real if self._first_position is not None else batch["attention_mask"].numel()

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        """Returns what the model read, its tokens as text again; a word that is not in the vocabulary stands as the model saw it ([UNK])."""
        tokenizer = self._tokenizer
        around = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        tokens = [token for token in self.dataset(split)[0, index]["input_ids"].tolist() if token not in around]
        return escaped(tokenizer.decode(tokens))

    def save(self, model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        model.save_pretrained(folder, state_dict=weights)
        self._tokenizer.save_pretrained(folder)


def prepared(experiment: Experiment, read_labels: ReadLabels, source: str | None = None) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of the prepared texts, and the facts about them; ranks that call this together share one preparation.

    Args:
        source: of the data, where the task knows more of it than data.source says.
    """
    data = experiment.data if source is None else experiment.data.model_copy(update={"source": source})
    known = experiment.model_copy(update={"data": data})
    return prepare_once(experiment, lambda _, folder: prepare(known, read_labels, folder), is_whole)


def prepare(experiment: Experiment, read_labels: ReadLabels, folder: Path) -> None:
    """Reads, checks and tokenises every split, and writes them into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad row.
    """
    options, data, source = experiment.task, experiment.data, experiment.model.source
    assert isinstance(options, TextsSection)
    assert source is not None
    text_columns = [options.text] if isinstance(options.text, str) else list(options.text)
    bad_rows = BadRows(data.on_bad_row)
    tokenizer = load_tokenizer(source)
    _check_length(options, source, tokenizer)
    splits = load_splits(data, dict.fromkeys(text_columns, "task.text") | {options.label: "task.label"}, bad_rows)
    labels = read_labels(splits, bad_rows)
    rows = {name: _usable_rows(split, text_columns, options.label, labels.numbers[name], bad_rows) for name, split in splits.items()}
    bad_rows.check()
    rows = divide(rows, data, experiment.seed)
    num_samples = {name: write_tokens(folder / f"{name}.arrow", _tokenised(split, text_columns, options, tokenizer)) for name, split in rows.items()}
    notes = list(labels.notes)
    if labels.names:
        notes += missing_classes(set(rows["train"].columns[options.label]), labels.names, data.limit)
    else:
        notes += single_values({name: list(split.columns[options.label]) for name, split in rows.items()}, data.limit)
    write_facts(folder, num_samples, notes, bad_rows, label_names=labels.names, **tokenizer_facts(tokenizer))


def _usable_rows(split: Split, text_columns: Sequence[str], label: str, numbers: Sequence[float | None], bad_rows: BadRows) -> Split:
    """Returns the rows that have a label and texts, the label replaced by its number."""
    is_usable = np.zeros(len(split), bool)
    for index, (number, *texts) in enumerate(zip(numbers, *(split.columns[column] for column in text_columns), strict=True)):
        problem = next((p for column, text in zip(text_columns, texts, strict=True) if (p := text_problem(column, text))), None)
        if number is not None and problem is not None:
            bad_rows.add(split.place(index), problem)
        is_usable[index] = number is not None and problem is None
    numbered = replace(split, columns={**split.columns, label: numbers})
    return numbered.select(np.flatnonzero(is_usable))


def _tokenised(split: Split, text_columns: Sequence[str], options: Any, tokenizer: Any) -> Iterator[dict[str, list[Any]]]:
    """Yields chunks of token numbers and labels; token_type_ids only for pairs, and only if the model tells the two apart."""
    has_types = len(text_columns) == 2 and "token_type_ids" in tokenizer.model_input_names
    with progress_bar(len(split)) as bar:
        for start in range(0, len(split), ROWS_PER_CHUNK):
            end = min(start + ROWS_PER_CHUNK, len(split))
            chunk: dict[str, list[Any]] = {}
            for part in (slice(first, min(first + TEXTS_AT_ONCE, end)) for first in range(start, end, TEXTS_AT_ONCE)):
                texts = [list(split.columns[column][part]) for column in text_columns]
                encoded = tokenizer(
                    *texts, truncation=True, max_length=options.max_length, return_attention_mask=False, return_token_type_ids=has_types
                )
                for name in ("input_ids", "token_type_ids"):
                    if name in encoded:
                        chunk.setdefault(name, []).extend(encoded[name])
                bar.update(part.stop - part.start)
            yield chunk | {"label": list(split.columns[options.label][start:end])}


def _check_length(options: TextsSection, source: str, tokenizer: Any) -> None:
    """Raises ConfigError if the model has no positions for task.max_length tokens, or these leave no room for a token of each text."""
    longest = check_positions("task.max_length", options.max_length, source, tokenizer)
    num_texts = 1 if isinstance(options.text, str) else len(options.text)
    num_special = tokenizer.num_special_tokens_to_add(pair=num_texts == 2)
    shortest = num_special + num_texts
    if options.max_length < shortest:
        what = f"{options.max_length} tokens, but the model {source} adds {num_special} of its own to every input"
        raise ConfigError(Problem(what, key="task.max_length", allowed=f"{shortest} to {longest}"))
