"""Reads tagged words: one a line with its columns, an empty line between sentences (the layout of the CoNLL shared tasks)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from trainers.reading.columns import store_rows
from trainers.reading.rows import BadRows, Fields, Split, check_columns, shortened
from trainers.reading.text_files import is_text, open_text

Lines = list[tuple[int, list[str]]]
"""(number, columns) of the lines of one sentence."""


def read_conll(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Returns one row a sentence, each wanted column as a list of its words' values; a row's number is the line of its first word.

    Columns are separated by tabs, or by any white space where a line has no tab. Without data.columns the first wanted column is the first of
    the file, and the last its last. A sentence with a bad line is a bad row.
    """
    columns = list(fields)
    if data.columns is not None:
        check_columns(data.columns, fields, str(path), data)

    def usable() -> Iterator[tuple[int, list[str]]]:
        width = len(data.columns) if data.columns is not None else None
        for lines in sentences:
            width = width or len(lines[0][1])
            problems = [(number, problem) for number, values in lines if (problem := _problem(values, width, data))]
            for number, problem in problems:
                bad_rows.add(f"{path}:{number}", problem)
            if not problems:
                places = [data.columns.index(column) for column in columns] if data.columns is not None else [0, width - 1]
                yield lines[0][0], [json.dumps([values[place] for _, values in lines]) for place in places]

    with open_text(path, data.encoding) as file:
        sentences = _sentences(file)
        stored, numbers = store_rows(usable(), columns, decode=json.loads)
    if not len(numbers) and not bad_rows.num_rows:
        raise ConfigError(Problem("the file holds no words", where=str(path), key="data.source"))
    return Split(stored, str(path), numbers, is_text_file=True)


def _sentences(lines: Iterator[str]) -> Iterator[Lines]:
    sentence: Lines = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentence:
                yield sentence
            sentence = []
        else:
            text = line.rstrip("\r\n")
            sentence.append((number, text.split("\t") if "\t" in text else text.split()))
    if sentence:
        yield sentence


def _problem(values: list[str], width: int, data: Data) -> str | None:
    if len(values) != width or width < 2:
        wanted = f"there are {width}" if width >= 2 else "a word and its tag are two"
        return f"{len(values)} column{'s' if len(values) != 1 else ''}, but {wanted}: {shortened(' '.join(values))}"
    if not values[0].strip():
        return "the word is empty"
    return None if is_text("".join(values)) else f"bytes that are not {data.encoding}"
