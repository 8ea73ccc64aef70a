"""Extractive question answering: the first and the last token of an answer that stands in a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks import QuestionAnswering
from trainers.data_facts import prepare_once, write_facts
from trainers.datasets import divide, load_splits
from trainers.models.pretrained import load_model, load_tokenizer
from trainers.reading.columns import Indices
from trainers.reading.rows import BadRows, shortened
from trainers.reports.rendering import escaped, table
from trainers.tasks import Batch
from trainers.texts.answers import AnswerF1, ExactMatch, best_span, judge
from trainers.texts.question_rows import CollateQuestions, QuestionDataset, Questions, usable_questions, write_questions
from trainers.texts.tokenising import check_positions, is_whole, tokenizer_facts
from trainers.texts.tokens import PadTokens, TokenDataset

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

NUM_SHOWN = 12
"""Questions that the report shows."""

SPLITS = ("train", "validation", "test")


def build_task(experiment: Experiment) -> QuestionAnsweringTask:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    return QuestionAnsweringTask(experiment, *prepare_once(experiment, prepare, is_whole))


class QuestionAnsweringTask:
    """See trainers.tasks.Task for what each method promises, and CollateQuestions for what a batch holds.

    A sample to train on is a window; a sample to judge is a question with all its windows, so that each question counts once.
    """

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, QuestionAnswering)
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint = info.get("fingerprint")
        self.label_names: list[str] = []
        self.notes: list[str] = info["notes"]
        self.collate = CollateQuestions(PadTokens(info["pad_token_id"], info["padding_side"]))
        self._num_windows: dict[str, int] = info["num_windows"]
        self._pad_token_id = info["pad_token_id"]
        self._experiment, self._options, self._folder = experiment, experiment.task, folder
        self._questions = {split: Questions(folder / f"{split}_questions.arrow") for split in self.num_samples}

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(str(self._experiment.model.source))

    def dataset(self, split: str) -> TokenDataset | QuestionDataset:
        windows = TokenDataset(self._folder / f"{split}.arrow", self._num_windows[split])
        return windows if split == "train" else QuestionDataset(windows, self._questions[split], SPLITS.index(split))

    def lengths(self, split: str) -> Indices:
        return self.dataset(split).lengths()

    def build_model(self) -> nn.Module:
        return load_model("AutoModelForQuestionAnswering", self._experiment.model, [], self._experiment.seed, self._pad_token_id)

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """Returns the mean of the two cross-entropies, summed over the windows, and the number of windows."""
        losses = sum(
            functional.cross_entropy(logits, batch[name], reduction="sum")
            for logits, name in zip(_logits(model, batch), ("first", "last"), strict=True)
        )
        return torch.as_tensor(losses) / 2, torch.tensor(self.batch_count(batch), device=batch["first"].device)

    def batch_count(self, batch: Batch) -> int:
        return len(batch["first"])

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        return int(batch["attention_mask"].sum()), batch["attention_mask"].numel()

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Returns each question's loss over its windows, how many windows there are, and its exact match and F1, float64 [Q]."""
        starts, ends = _logits(model, batch)
        losses = (
            functional.cross_entropy(starts, batch["first"], reduction="none") + functional.cross_entropy(ends, batch["last"], reduction="none")
        ) / 2
        summed = torch.zeros(len(batch["questions"]), device=losses.device).index_add(0, batch["row"], losses)
        scores = [judge(found, asked["answers"]) for asked, found in self._answered(batch, starts, ends)]
        exact, f1 = (torch.tensor(values, dtype=torch.float64, device=losses.device) for values in zip(*scores, strict=True))
        return summed, torch.tensor(len(losses), device=losses.device), (exact, f1)

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection

        # Without groups: two sums that are equal at first would be taken for one.
        return MetricCollection({"exact_match": ExactMatch(), "f1": AnswerF1()}, compute_groups=False)

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns a table of the first questions: what is asked, what the answer is, and what the model found."""
        dataset = self.dataset(split)
        batch = place(self.collate([dataset[0, index] for index in range(min(NUM_SHOWN, self.num_samples[split]))]))
        rows = []
        for asked, found in self._answered(batch, *_logits(model, batch)):
            exact, f1 = judge(found, asked["answers"])
            answer = escaped(found) or "none"
            answers = " / ".join(map(escaped, dict.fromkeys(asked["answers"]))) or "none"
            rows.append((escaped(asked["question"]), answers, f"**{answer}**" if exact else answer, f"{f1:.2f}"))
        return f"## Answers\n\nThe first questions of the {split} split. **Bold**: exactly.\n\n" + table(
            ("question", "answer", "the model's", "F1"), rows
        )

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        if split == "train":
            return escaped(self._tokenizer.decode(self.dataset(split)[0, index]["input_ids"], skip_special_tokens=True))
        asked = self._questions[split][index]
        return f"{escaped(asked['question'])} — {' / '.join(map(escaped, dict.fromkeys(asked['answers']))) or 'no answer'}"

    def save(self, model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        model.save_pretrained(folder, state_dict=weights)
        self._tokenizer.save_pretrained(folder)

    def _answered(self, batch: Batch, starts: Tensor, ends: Tensor) -> Iterator[tuple[dict[str, Any], str]]:
        """Yields each question of a batch with the answer found; empty where no answer is likelier (task.no_answer)."""
        for row, (split, index) in enumerate(batch["questions"].tolist()):
            asked, mine = self._questions[SPLITS[split]][index], batch["row"] == row
            score, start, end = best_span(starts[mine], ends[mine], batch["starts"][mine], batch["ends"][mine], self._options.max_answer_length)
            null = batch["null"][mine, None]
            nothing = (starts[mine].gather(1, null) + ends[mine].gather(1, null)).min()
            yield asked, "" if self._options.no_answer and float(nothing) > score else asked["context"][start:end]


def _logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the scores of each token to be the first and the last of the answer, float32 [W, T] each; padding can be neither."""
    output = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch})
    is_padding = batch["attention_mask"] == 0
    lowest = torch.finfo(torch.float32).min
    return output.start_logits.float().masked_fill(is_padding, lowest), output.end_logits.float().masked_fill(is_padding, lowest)


def prepare(experiment: Experiment, folder: Path) -> None:
    """Reads, checks and tokenises every split, and writes them into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad row.
    """
    options, data, source = experiment.task, experiment.data, experiment.model.source
    assert isinstance(options, QuestionAnswering)
    assert source is not None
    bad_rows = BadRows(data.on_bad_row)
    tokenizer = load_tokenizer(source)
    check_positions("task.max_length", options.max_length, source, tokenizer)
    fields = {options.question: "task.question", options.context: "task.context", options.answers: "task.answers"}
    is_cut = data.validation_fraction is not None or data.test_fraction is not None or data.train_fraction is not None
    by = options.article if is_cut else None
    splits = load_splits(data, fields | ({by: "task.article"} if by else {}), bad_rows)
    rows = {name: usable_questions(split, options, tokenizer, bad_rows) for name, split in splits.items()}
    bad_rows.check()
    if by and len(rows["train"]) and len(set(rows["train"].columns[by])) < 2:
        what = f"all questions are of one article, the {by} {shortened(repr(rows['train'].columns[by][0]))}, and whole articles are cut from train"
        raise ConfigError(Problem(what, rows["train"].origin, "task.article", fix="task.article=null, which cuts single questions"))
    divided = divide(rows, data, experiment.seed, by)
    counts = {name: write_questions(folder, name, split, options, tokenizer) for name, split in divided.items()}
    notes = [
        f"warning: no question of the {name} split has an answer"
        for name, split in divided.items()
        if not any(answers["text"] for answers in split.columns[options.answers])
    ]
    notes += [f"{name}: {num_questions} questions in {num_windows} windows" for name, (num_questions, num_windows) in counts.items()]
    num_samples = {name: num_windows if name == "train" else num_questions for name, (num_questions, num_windows) in counts.items()}
    write_facts(
        folder,
        num_samples,
        notes,
        bad_rows,
        num_windows={name: num_windows for name, (_, num_windows) in counts.items()},
        **tokenizer_facts(tokenizer),
    )
