"""Reads SQuAD's own JSON files: articles of paragraphs of questions, one row a question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from trainers.reading.columns import store_rows
from trainers.reading.rows import BadRows, Fields, Split, check_columns
from trainers.reading.text_files import is_text, open_text, value_problem

COLUMNS = ("question", "context", "answers", "title", "id")
_PLACE = "place"


def read_squad(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Returns one row a question, with the columns that the hub's SQuAD has; a row's place is where it stands in the JSON.

    Raises:
        ConfigError: the file is no JSON, or of another layout.
    """
    articles = _articles(path, data)
    check_columns(COLUMNS, fields, str(path), None)

    def usable() -> Iterator[tuple[int, list[str]]]:
        for number, (place, row) in enumerate(_questions(articles)):
            problem = row if isinstance(row, str) else value_problem(row)
            if isinstance(row, str) or problem:
                bad_rows.add(f"{path}: {place}", str(problem))
            else:
                yield number, [json.dumps(value) for value in (*(row[column] for column in fields), place)]

    stored, numbers = store_rows(usable(), [*fields, _PLACE], decode=json.loads)
    return Split({column: stored[column] for column in fields}, str(path), numbers, is_text_file=False, places=stored[_PLACE])


def _articles(path: Path, data: Data) -> list[Any]:
    with open_text(path, data.encoding) as file:
        text = file.read()
    if not is_text(text):
        line = next(number for number, line in enumerate(text.split("\n"), start=1) if not is_text(line))
        what = f"bytes that are not {data.encoding}"
        raise ConfigError(Problem(what, f"{path}:{line}", "data.encoding", allowed="another one, e.g. latin-1"))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        where, what = (f"{path}:{error.lineno}", error.msg) if isinstance(error, json.JSONDecodeError) else (str(path), str(error))
        raise _no_squad(where, what) from error
    articles = content.get("data") if isinstance(content, dict) else None
    if not isinstance(articles, list):
        raise _no_squad(str(path), "it has no list 'data' of articles")
    return articles


def _no_squad(where: str, what: str) -> ConfigError:
    return ConfigError(Problem(f"is no SQuAD file: {what}", where, "data.format", fix="data.format=jsonl for one question a line"))


def _questions(articles: list[Any]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yields the place of each question, and its row, or what is wrong with it or with what it should stand in."""
    for a, article in enumerate(articles):
        paragraphs = _list(article, "paragraphs")
        if paragraphs is None:
            yield f"data[{a}]", "has no list 'paragraphs'"
        for p, paragraph in enumerate(paragraphs or []):
            asked = _list(paragraph, "qas")
            if asked is None:
                yield f"data[{a}].paragraphs[{p}]", "has no list 'qas' of questions"
            for q, question in enumerate(asked or []):
                yield f"data[{a}].paragraphs[{p}].qas[{q}]", _row(article, paragraph, question)


def _row(article: Any, paragraph: Any, asked: Any) -> dict[str, Any] | str:
    try:
        answers = [] if asked.get("is_impossible") else asked["answers"]
        return {
            "question": asked["question"],
            "context": paragraph["context"],
            "answers": {"text": [answer["text"] for answer in answers], "answer_start": [answer["answer_start"] for answer in answers]},
            "title": article.get("title", ""),
            "id": asked.get("id", ""),
        }
    except KeyError as error:
        return f"has no {error.args[0]!r}"
    except (TypeError, AttributeError):
        return "is not laid out as SQuAD's questions are"


def _list(value: Any, key: str) -> list[Any] | None:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else None
