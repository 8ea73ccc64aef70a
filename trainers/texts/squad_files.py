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

COLUMNS = ("question", "context", "answers", "title", "id")
_PLACE = "place"


def read_squad(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Returns one row a question, with the columns that the hub's SQuAD has; a row's place is where it stands in the JSON.

    Raises:
        ConfigError: the file is no JSON, or of another layout.
    """
    try:
        articles = json.loads(path.read_text(encoding=data.encoding))["data"]
        assert isinstance(articles, list)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        what = f"is no SQuAD file: {error.msg}" if isinstance(error, json.JSONDecodeError) else "is no SQuAD file: it has no list 'data' of articles"
        raise ConfigError(Problem(what, where, "data.format", fix="data.format=jsonl for one question a line")) from error

    check_columns(COLUMNS, fields, str(path), None)

    def usable() -> Iterator[tuple[int, list[str]]]:
        for number, (place, row) in enumerate(_questions(articles)):
            if isinstance(row, str):
                bad_rows.add(f"{path}: {place}", row)
            else:
                yield number, [json.dumps(value) for value in (*(row[column] for column in fields), place)]

    stored, numbers = store_rows(usable(), [*fields, _PLACE], decode=json.loads)
    return Split({column: stored[column] for column in fields}, str(path), numbers, is_text_file=False, places=stored[_PLACE])


def _questions(articles: list[Any]) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yields the place of each question, and its row, or what is wrong with it."""
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(_list(article, "paragraphs")):
            for q, asked in enumerate(_list(paragraph, "qas")):
                place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                yield place, _row(article, paragraph, asked)


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


def _list(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []
