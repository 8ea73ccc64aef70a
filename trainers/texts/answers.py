"""Answers that stand in a text: windows over long texts, the best span of them, and how it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import squad

OUTSIDE = -1
"""Offset of a token that is not of the context."""


@dataclass(frozen=True)
class Window:
    """A question and a part of its context, as tokens.

    Args:
        starts: where each token begins in the context, in characters; -1: it is not of the context.
        ends: where it ends.
        null: place of the token that stands for "no answer here": [CLS].
    """

    input_ids: list[int]
    token_type_ids: list[int] | None
    starts: list[int]
    ends: list[int]
    null: int

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """Returns the first and the last token of the characters [start, end); the null token twice where they are not all in the window."""
        first = next((place for place, (low, high) in enumerate(zip(self.starts, self.ends, strict=True)) if low <= start < high), None)
        last = next((place for place, (low, high) in enumerate(zip(self.starts, self.ends, strict=True)) if low < end <= high), None)
        return (self.null, self.null) if first is None or last is None or first > last else (first, last)


def cut_windows(tokenizer: Any, questions: Sequence[str], contexts: Sequence[str], max_length: int, stride: int) -> list[list[Window]]:
    """Returns for each question the windows over its context; neighbours share `stride` tokens."""
    encoded = tokenizer(
        [question.strip() for question in questions],
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    windows: list[list[Window]] = [[] for _ in questions]
    for number, question in enumerate(encoded["overflow_to_sample_mapping"]):
        ids, parts = encoded["input_ids"][number], encoded.sequence_ids(number)
        offsets = [offset if part == 1 else (OUTSIDE, OUTSIDE) for part, offset in zip(parts, encoded["offset_mapping"][number], strict=True)]
        types = encoded["token_type_ids"][number] if "token_type_ids" in encoded else None
        null = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
        windows[question].append(Window(ids, types, [start for start, _ in offsets], [end for _, end in offsets], null))
    return windows


def best_span(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor, longest: int) -> tuple[float, int, int]:
    """Returns (score, first character, character after the last) of the likeliest answer in a question's windows.

    All spans of context tokens up to `longest` are compared, not the n best starts with the n best ends, so none is overlooked.

    Args:
        start_logits, end_logits: float32 [W, T].
        starts, ends: character offsets of the tokens, int64 [W, T]; -1 outside of the context.
    """
    is_context = starts >= 0
    first = start_logits.masked_fill(~is_context, -torch.inf)[:, :, None]
    last = end_logits.masked_fill(~is_context, -torch.inf)[:, None, :]
    band = torch.ones(starts.shape[1], starts.shape[1], dtype=torch.bool, device=starts.device).triu().tril(longest - 1)
    scores = (first + last).masked_fill(~band, -torch.inf)
    best = int(scores.flatten().argmax())
    window, rest = divmod(best, starts.shape[1] ** 2)
    begin, end = divmod(rest, starts.shape[1])
    return float(scores[window, begin, end]), int(starts[window, begin]), int(ends[window, end])


def judge(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """Returns exact match and F1 of the words, each 0 to 1, against the answer that fits best; by SQuAD's normalisation (torchmetrics)."""
    texts = list(answers) or [""]
    target = {"answers": {"answer_start": [0] * len(texts), "text": texts}, "id": "0"}
    scores = squad([{"prediction_text": prediction, "id": "0"}], [target])
    return float(scores["exact_match"]) / 100, float(scores["f1"]) / 100


class ExactMatch(Metric):
    """Mean exact match over the questions."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, exact: Tensor, f1: Tensor) -> None:
        """Adds the questions of a batch, float64 [Q] each."""
        self.total, self.count = self.total + self._chosen(exact, f1).sum(), self.count + len(exact)

    def compute(self) -> Tensor:
        return self.total / self.count.clamp(min=1)

    def _chosen(self, exact: Tensor, f1: Tensor) -> Tensor:
        return exact


class AnswerF1(ExactMatch):
    """Mean F1 over the questions."""

    def _chosen(self, exact: Tensor, f1: Tensor) -> Tensor:
        return f1


@dataclass(frozen=True)
class Answerer:
    """A question and a text go in, the answer comes out."""

    model: Any
    tokenizer: Any
    max_length: int
    stride: int
    longest: int

    def __call__(self, question: str, context: str) -> dict[str, Any]:
        """Returns the answer, where it stands in the context, and its score (the sum of two logits)."""
        (windows,) = cut_windows(self.tokenizer, [question], [context], self.max_length, self.stride)
        best: tuple[float, int, int] | None = None
        for window in windows:
            types = {} if window.token_type_ids is None else {"token_type_ids": torch.tensor([window.token_type_ids])}
            with torch.inference_mode():
                output = self.model(input_ids=torch.tensor([window.input_ids]), **types)
            offsets = torch.tensor([window.starts]), torch.tensor([window.ends])
            found = best_span(output.start_logits.float(), output.end_logits.float(), *offsets, self.longest)
            best = max(best, found) if best else found
        assert best is not None
        score, start, end = best
        return {"answer": context[start:end], "start": start, "end": end, "score": score}


def load_answerer(folder: str | Path, max_length: int = 384, stride: int = 128, max_answer_length: int = 30) -> Answerer:
    """Returns what a run of question_answering saved in its model/ folder, or what fullrank export made of that."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from trainers.models.int8 import INT8_FILE, load_int8

    is_int8 = (Path(folder) / INT8_FILE).is_file()
    model: Any = load_int8(folder) if is_int8 else AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    max_length = min(max_length, tokenizer.model_max_length)
    return Answerer(model, tokenizer, max_length, min(stride, max_length // 2), max_answer_length)
