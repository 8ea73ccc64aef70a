"""What masked and causal language modelling share: rows of tokens, the loss of the targets alone, perplexity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks.language_modelling import LanguageModelling
from trainers.data_facts import prepare_once, write_facts
from trainers.datasets import divide, load_splits
from trainers.models.pretrained import load_model, load_tokenizer
from trainers.reading.columns import Indices
from trainers.reading.rows import BadRows, Split
from trainers.reports.rendering import escaped
from trainers.tasks import Batch
from trainers.texts.packing import attention_within_segments, first_position, prove_packing
from trainers.texts.row_batches import PadRows
from trainers.texts.token_rows import Tokens, joined_rows, packed_rows, single_rows
from trainers.texts.tokenising import TEXTS_AT_ONCE, check_positions, is_whole, progress_bar, text_problem, tokenizer_facts
from trainers.texts.tokens import NO_LABEL, ROWS_PER_CHUNK, TokenDataset, write_tokens

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Value = TypeVar("Value")
ROW_MAKERS = {"packed": packed_rows, "joined": joined_rows, "single": single_rows}


class LanguageModellingTask(ABC):
    """The half of trainers.tasks.Task that does not depend on which tokens are guessed, and from what."""

    KIND: ClassVar[str]
    """The class of transformers that builds the model."""
    IS_CAUSAL: ClassVar[bool]

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, LanguageModelling)
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint = info["fingerprint"]
        self.label_names: list[str] = []
        batch, block = experiment.train.global_batch_size, experiment.task.block_size
        self.notes: list[str] = [*info["notes"], f"a step is {batch} rows of at most {block} tokens: {batch * block:,}"]
        self.collate = PadRows(info["pad_token_id"], self.IS_CAUSAL)
        self._experiment, self._options, self._folder = experiment, experiment.task, folder
        self._targets = Targets()
        self._first_position, self._attention = 0, "sdpa"

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(str(self._experiment.model.source))

    def rows(self, split: str) -> TokenDataset:
        """Returns the rows of a split as they were prepared."""
        return TokenDataset(self._folder / f"{split}.arrow", self.num_samples[split])

    def lengths(self, split: str) -> Indices | None:
        return self.rows(split).lengths() if self._options.rows == "single" else None

    def build_model(self) -> nn.Module:
        network: Any = load_model(self.KIND, self._experiment.model, [], self._experiment.seed, self.collate.pad_token_id)
        if self._options.rows == "packed":
            prove_packing(network, self.IS_CAUSAL, len(self.tokenizer))
            self._first_position, self._attention = first_position(network), network.config._attn_implementation
        self.attach(network)
        new = getattr(network, "new_tensors", [])
        note = f"{self._experiment.model.source} has no weights for {', '.join(new)}: they are new"
        self.notes += [note] if new and note not in self.notes else []
        return network

    def attach(self, network: nn.Module) -> None:
        """Makes the head of a network compute the targets of this task's batches alone, as that of build_model does."""
        self._targets.select_in(network)

    @property
    def head_share(self) -> float:
        """Returns the share of the tokens that the head computes."""
        return 1.0 if self.IS_CAUSAL else float(getattr(self._options, "mask_probability", 1.0))

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns float32 [N, vocabulary] for the N targets of the batch alone: the head computes nothing else."""
        inputs: dict[str, Any] = {"input_ids": batch["input_ids"]}
        if self._options.rows == "packed":
            inputs["attention_mask"] = attention_within_segments(batch["segments"], self.IS_CAUSAL, self._attention)
            inputs["position_ids"] = batch["position_ids"] + self._first_position
        else:
            inputs["attention_mask"] = (batch["segments"] > 0).long()
        if self.IS_CAUSAL:
            inputs["use_cache"] = False
        with self._targets.at(batch["targets"] != NO_LABEL):
            return model(**inputs).logits[0].float()

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        logits, targets = self.logits(model, batch), _targets_of(batch)
        loss_sum = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
        return loss_sum, torch.tensor(targets.numel(), device=targets.device)

    def batch_count(self, batch: Batch) -> int:
        return int((batch["targets"] != NO_LABEL).sum())

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        return int((batch["segments"] > 0).sum()), batch["segments"].numel()

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        loss_sum, count = self.train_loss(model, batch, 0.0)
        return loss_sum, count, (loss_sum, count)

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection

        from trainers.tasks.perplexity import Perplexity

        return MetricCollection({"perplexity": Perplexity()})

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        return escaped(self.tokenizer.decode(self.rows(split)[0, index]["input_ids"].tolist()))

    def save(self, model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)

    @abstractmethod
    def illustrate(self, model: nn.Module, split: str, place: Any, folder: Path | None) -> str: ...


class Targets:
    """Hands the head the vectors of the tokens that are guessed, and no others: its matrix is as wide as the vocabulary."""

    def __init__(self) -> None:
        self._wanted: Tensor | None = None

    def select_in(self, network: Any) -> None:
        """Makes a model of transformers compute what `at` wants."""
        assert network.base_model is not network, type(network).__name__
        network.base_model.register_forward_hook(self._select)

    @contextmanager
    def at(self, wanted: Tensor) -> Iterator[None]:
        """Within it, the head sees [1, N, H]: the N places where `wanted`, bool [B, T], is true, row by row."""
        self._wanted = wanted
        try:
            yield
        finally:
            self._wanted = None

    def _select(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if self._wanted is not None:
            output.last_hidden_state = output.last_hidden_state[self._wanted][None]
        return output


def prepared(experiment: Experiment) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of the prepared rows and the facts about them; ranks that call this together share one preparation."""
    return prepare_once(experiment, prepare, is_whole)


def prepare(experiment: Experiment, folder: Path) -> None:
    """Reads, checks and tokenises every split, fills rows with it, and writes them into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad row.
    """
    options, data, source = experiment.task, experiment.data, experiment.model.source
    assert isinstance(options, LanguageModelling)
    assert source is not None
    bad_rows = BadRows(data.on_bad_row)
    tokenizer = load_tokenizer(source)
    if experiment.model.config is None:
        check_positions("task.block_size", options.block_size, source, tokenizer)
    begin, end = _ends(tokenizer, source, options.kind)
    keeps_words = bool(getattr(options, "whole_words", False))
    splits = load_splits(data, {options.text: "task.text"}, bad_rows)
    usable = {name: _usable(split, options.text, bad_rows) for name, split in splits.items()}
    bad_rows.check()
    usable = divide(usable, data, experiment.seed)
    num_samples, notes = {}, []
    for name, split in usable.items():
        counted = Counted(_texts(split, options.text, tokenizer, begin, end, keeps_words))
        rows = ROW_MAKERS[options.rows](counted, options.block_size)
        num_samples[name] = write_tokens(folder / f"{name}.arrow", _chunks(rows))
        if not num_samples[name]:
            raise ConfigError(Problem(f"the texts of the {name} split have no tokens", split.origin, "task.text"))
        notes.append(f"{name}: {counted.texts:,} texts of {counted.tokens:,} tokens in {num_samples[name]:,} rows of at most {options.block_size}")
    write_facts(folder, num_samples, notes, bad_rows, **tokenizer_facts(tokenizer))


class Counted:
    """Texts that are counted as they go by."""

    def __init__(self, texts: Iterator[Tokens]) -> None:
        self._source, self.texts, self.tokens = texts, 0, 0

    def __iter__(self) -> Iterator[Tokens]:
        for text in self._source:
            self.texts, self.tokens = self.texts + 1, self.tokens + len(text["input_ids"])
            yield text


def _targets_of(batch: Batch) -> Tensor:
    return batch["targets"][batch["targets"] != NO_LABEL]


def _ends(tokenizer: Any, source: str, kind: str) -> tuple[int, int]:
    """Returns the tokens that stand before and behind each text: [CLS] and [SEP], or those of its language model."""
    begins = (tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    ends = (tokenizer.sep_token_id, tokenizer.eos_token_id)
    begin, end = (next((token for token in tokens if token is not None), None) for tokens in (begins, ends))
    if begin is None or end is None:
        raise ConfigError(Problem(f"the tokenizer of {source} has no tokens for the ends of a text", key="model.source"))
    if kind == "masked_lm" and tokenizer.mask_token_id is None:
        what = f"the tokenizer of {source} has no token that hides another"
        raise ConfigError(Problem(what, key="model.source", allowed="a masked language model", fix="task.kind=causal_lm"))
    return int(begin), int(end)


def _usable(split: Split, column: str, bad_rows: BadRows) -> Split:
    usable = np.ones(len(split), bool)
    for index, text in enumerate(split.columns[column]):
        problem = text_problem(column, text)
        if problem is not None:
            bad_rows.add(split.place(index), problem)
            usable[index] = False
    return split.select(np.flatnonzero(usable))


def _texts(split: Split, column: str, tokenizer: Any, begin: int, end: int, keeps_words: bool) -> Iterator[Tokens]:
    """Yields each text's tokens between its ends; `words`: the number of each token's word, -1 at the ends."""
    with progress_bar(len(split)) as bar:
        for texts in _lists(split.columns[column], TEXTS_AT_ONCE):
            encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False)
            for number, tokens in enumerate(encoded["input_ids"]):
                text = {"input_ids": [begin, *tokens, end]}
                if keeps_words:
                    text["words"] = [-1, *(-1 if word is None else word for word in encoded.word_ids(number)), -1]
                yield text
            bar.update(len(texts))


def _chunks(rows: Iterator[Tokens]) -> Iterator[dict[str, list[list[int]]]]:
    for some in _lists(rows, ROWS_PER_CHUNK):
        yield {name: [row[name] for row in some] for name in some[0]}


def _lists(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    remaining = iter(values)
    while some := list(islice(remaining, size)):
        yield some
