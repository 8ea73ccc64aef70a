"""Questions as they are prepared: checked, cut into windows, and kept on disk with what judging them needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from launch.config.tasks import QuestionAnswering
from trainers.reading.columns import Indices
from trainers.reading.rows import BadRows, Split, shortened
from trainers.texts.answers import Window, cut_windows
from trainers.texts.tokenising import progress_bar, text_problem
from trainers.texts.tokens import ROWS_PER_CHUNK, PadTokens, TokenDataset, write_tokens

QUESTIONS_AT_ONCE = 200
"""Given to the tokenizer together: windows with the offsets of their tokens weigh a few kilobytes each."""

Answers = Mapping[str, list[Any]]


def usable_questions(split: Split, options: QuestionAnswering, tokenizer: Any, bad_rows: BadRows) -> Split:
    """Returns the rows with a question, a text and answers that stand in it; the others go to `bad_rows`."""
    is_usable = np.zeros(len(split), bool)
    room = options.max_length - options.stride - tokenizer.num_special_tokens_to_add(pair=True)
    columns = (split.columns[column] for column in (options.question, options.context, options.answers))
    articles = split.columns.get(options.article or "") or [None] * len(split)
    for index, (question, context, answers, article) in enumerate(zip(*columns, articles, strict=True)):
        problem = text_problem("question", question) or text_problem("context", context) or _answer_problem(context, answers, options.no_answer)
        if problem is None and not (article is None or isinstance(article, str | int)):
            problem = f"the {options.article} {shortened(repr(article))} is neither a text nor a whole number"
        if problem is None and (length := len(tokenizer(question.strip(), add_special_tokens=False)["input_ids"])) >= room:
            problem = f"the question has {length} tokens; task.max_length and task.stride leave {max(room - 1, 0)}"
        if problem is not None:
            bad_rows.add(split.place(index), problem)
        is_usable[index] = problem is None
    return split.select(np.flatnonzero(is_usable))


def write_questions(folder: Path, name: str, split: Split, options: QuestionAnswering, tokenizer: Any) -> tuple[int, int]:
    """Writes the windows of a split, and beside them its questions; returns how many questions and how many windows there are."""
    firsts = [0]
    num_windows = write_tokens(folder / f"{name}.arrow", _windows(split, options, tokenizer, firsts))
    _write_texts(folder / f"{name}_questions.arrow", split, options, firsts)
    return len(split), num_windows


class Questions:
    """The texts of a split's questions; maps the file on first use, so that it pickles as a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table: Any = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns question, context, answers (texts)."""
        return {name: self._mapped().column(name)[index].as_py() for name in ("question", "context", "answers")}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_table": None}

    def firsts(self) -> Indices:
        """Returns the number of each question's first window, and last that of all windows, int64 [Q + 1]."""
        table = self._mapped()
        lasts = np.array(table.column("end").to_pylist(), np.int64)
        return np.concatenate([np.zeros(1, np.int64), lasts])

    def _mapped(self) -> Any:
        if self._table is None:
            import pyarrow as pa

            self._table = pa.ipc.open_stream(pa.memory_map(str(self.path))).read_all()
        return self._table


class QuestionDataset(Dataset[dict[str, Any]]):
    """The questions of a split with all their windows, by (epoch, index)."""

    def __init__(self, windows: TokenDataset, questions: Questions, number: int) -> None:
        self.windows, self.firsts, self.number = windows, questions.firsts(), number

    def __len__(self) -> int:
        return len(self.firsts) - 1

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        numbers = range(int(self.firsts[index]), int(self.firsts[index + 1]))
        return {"windows": [self.windows[epoch, number] for number in numbers], "question": (self.number, index)}

    def lengths(self) -> Indices:
        """Returns the tokens of all windows of each question."""
        totals = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.windows.lengths())])
        return np.diff(totals[self.firsts])


class CollateQuestions:
    """Collates windows (training), or questions with all their windows (evaluation).

    Returns input_ids, attention_mask (and token_type_ids), int64 [W, T]; first and last, int64 [W]: the answer's tokens. Of questions also
    starts and ends, int64 [W, T]: character offsets, -1 outside of the context; null, int64 [W]; row, int64 [W]: the question of each window;
    questions, int64 [Q, 2]: (number of the split, index).
    """

    def __init__(self, pad: PadTokens) -> None:
        self._pad = pad

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        is_judged = "windows" in samples[0]
        windows = [window for sample in samples for window in sample["windows"]] if is_judged else samples
        inputs = ("input_ids", "token_type_ids")
        batch = self._pad([{name: window[name] for name in inputs if name in window} for window in windows])
        batch |= {name: torch.tensor([window[name] for window in windows]) for name in ("first", "last")}
        if is_judged:
            offsets = self._pad([{"input_ids": window["input_ids"], "starts": window["starts"], "ends": window["ends"]} for window in windows])
            is_padding = batch["attention_mask"] == 0
            batch |= {name: offsets[name].masked_fill(is_padding, -1) for name in ("starts", "ends")}
            batch["null"] = torch.tensor([window["null"] for window in windows])
            batch["row"] = torch.tensor([row for row, sample in enumerate(samples) for _ in sample["windows"]])
            batch["questions"] = torch.tensor([sample["question"] for sample in samples])
        return batch


def _answer_problem(context: str, answers: object, may_be_none: bool) -> str | None:
    texts, starts = (answers.get(name) for name in ("text", "answer_start")) if isinstance(answers, Mapping) else (None, None)
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return f"the answers {shortened(str(answers))} are not {{text: [...], answer_start: [...]}}"
    if not texts and not may_be_none:
        return "there is no answer (task.no_answer=true if there may be none)"
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int) or isinstance(start, bool):
            return f"the answer {text!r} at {start!r} is empty, or no text at a number"
        if not 0 <= start <= len(context) - len(text):
            return f"the answer {shortened(text)!r} at {start} lies outside of the context of {len(context)} characters"
        there = context[start : start + len(text)]
        if there != text:
            return f"the answer {shortened(text)!r} does not stand at {start}: there is {shortened(there)!r}"
    return None


def _windows(split: Split, options: QuestionAnswering, tokenizer: Any, firsts: list[int]) -> Iterator[dict[str, list[Any]]]:
    """Yields chunks of windows, and notes in `firsts` how many there are after each question."""
    waiting: list[dict[str, Any]] = []
    with progress_bar(len(split)) as bar:
        for start in range(0, len(split), QUESTIONS_AT_ONCE):
            part = slice(start, min(start + QUESTIONS_AT_ONCE, len(split)))
            questions, contexts = (list(split.columns[column][part]) for column in (options.question, options.context))
            cut = cut_windows(tokenizer, questions, contexts, options.max_length, options.stride)
            for windows, answers in zip(cut, split.columns[options.answers][part], strict=True):
                waiting += [_as_row(window, answers) for window in windows]
                firsts.append(firsts[-1] + len(windows))
            while len(waiting) >= ROWS_PER_CHUNK:
                yield _as_chunk(waiting[:ROWS_PER_CHUNK])
                waiting = waiting[ROWS_PER_CHUNK:]
            bar.update(part.stop - part.start)
    if waiting:
        yield _as_chunk(waiting)


def _as_row(window: Window, answers: Answers) -> dict[str, Any]:
    """Returns a window with the first answer's tokens, as SQuAD's training does; the null token where it has none."""
    first, last = window.null, window.null
    if answers["text"]:
        start = answers["answer_start"][0]
        first, last = window.locate(start, start + len(answers["text"][0]))
    types = {} if window.token_type_ids is None else {"token_type_ids": window.token_type_ids}
    place = {"first": first, "last": last, "null": window.null}
    return {"input_ids": window.input_ids, **types, "starts": window.starts, "ends": window.ends, **place}


def _as_chunk(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _write_texts(path: Path, split: Split, options: QuestionAnswering, firsts: Sequence[int]) -> None:
    import pyarrow as pa

    schema = pa.schema({"question": pa.string(), "context": pa.string(), "answers": pa.list_(pa.string()), "end": pa.int64()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, len(split), ROWS_PER_CHUNK):
            part = slice(start, min(start + ROWS_PER_CHUNK, len(split)))
            question, context = (list(split.columns[column][part]) for column in (options.question, options.context))
            answers = [list(found["text"]) for found in split.columns[options.answers][part]]
            values = [question, context, answers, list(firsts[part.start + 1 : part.stop + 1])]
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array(v, kind) for v, kind in zip(values, schema.types, strict=True)], schema=schema))
