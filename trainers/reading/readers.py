"""Reads one file into rows: csv, tsv, jsonl, parquet, text; CoNLL's and SQuAD's own layouts."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from launch.config.row_files import FORMATS_BY_ENDING, kind_problem, row_format
from trainers.reading.columns import ArrowColumn, store_batches, store_rows
from trainers.reading.rows import MAX_NAMED_ROWS, BadRows, Fields, Split, check_columns, shortened
from trainers.reading.text_files import is_text, open_text, value_problem
from trainers.texts.conll import read_conll
from trainers.texts.squad_files import read_squad

MAX_FIELD_CHARS = 2**27
"""A quotation mark that is never closed would otherwise read the rest of the file into memory."""

PARQUET_BATCH_ROWS = 1000
"""Rows of a parquet file in memory at a time; they may be pictures."""


def read_file(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Returns the wanted columns of a file, read by data.format or by its ending; what is wrong with single rows goes to `bad_rows`.

    Raises:
        ConfigError: the file as a whole cannot be read, or lacks a column.
    """
    name = row_format(path, data)
    if name is None or name not in READERS:
        what = f"{path.name} does not say by its ending how to read it" if data.format == "auto" else f"{data.format} is not the format of a file"
        raise ConfigError(Problem(what, where=str(path), key="data.format", allowed=", ".join(READERS)))
    try:
        if problem := kind_problem(path, data):
            raise ConfigError(problem)
        return READERS[name](path, data, fields, bad_rows)
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror or error}", where=str(path), key="data.source")) from error
    except UnicodeError as error:
        raise ConfigError(Problem(f"is not {data.encoding}: {error}", where=str(path), key="data.encoding")) from error


def _read_table(path: Path, data: Data, fields: Fields, bad_rows: BadRows, **dialect: Any) -> Split:
    """Reads csv or tsv; blank lines are not rows, and a line with undecodable bytes is a bad one."""
    csv.field_size_limit(MAX_FIELD_CHARS)
    with open_text(path, data.encoding) as file:
        rows = _table_rows(csv.reader(file, strict=True, **dialect), str(path), bad_rows)
        first = next(rows, None)
        if first is None:
            raise ConfigError(Problem("the file is empty", where=str(path), key="data.source"))
        names = data.columns or first[1]
        check_columns(names, fields, str(path), data)
        if data.columns and first[1] == data.columns:
            raise ConfigError(Problem("the first line already holds the names of the columns", f"{path}:1", "data.columns", fix="data.columns=null"))
        positions = [names.index(column) for column in fields]

        def usable() -> Iterator[tuple[int, list[str]]]:
            for line, values in itertools.chain([first], rows) if data.columns else rows:
                if len(values) != len(names):
                    what = f"{_counted(len(values), 'field')}, but there are {_counted(len(names), 'column')}: {shortened(', '.join(names))}"
                    bad_rows.add(f"{path}:{line}", what)
                elif not is_text("".join(values)):
                    bad_rows.add(f"{path}:{line}", f"bytes that are not {data.encoding}", allowed="another data.encoding, e.g. latin-1")
                else:
                    yield line, [values[position] for position in positions]

        columns, lines = store_rows(usable(), list(fields))
    return Split(columns, str(path), lines, is_text_file=True)


def _read_tsv(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Tab-separated, without quoting: a quotation mark is a character like any other."""
    return _read_table(path, data, fields, bad_rows, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_jsonl(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Reads one JSON object a line. Values are stored as JSON again: a column may hold texts, numbers and nothing, mixed."""
    seen: dict[str, None] = {}

    def usable(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                bad_rows.add(f"{path}:{line}", f"not valid JSON: {error}" if is_text(text) else f"bytes that are not {data.encoding}")
                continue
            if not isinstance(row, dict):
                bad_rows.add(f"{path}:{line}", f"{shortened(text.strip())} is not a JSON object")
                continue
            seen.update(dict.fromkeys(row))
            missing = [column for column in fields if column not in row]
            if missing:
                bad_rows.add(f"{path}:{line}", f"has no {' and no '.join(map(repr, missing))}", allowed=f"its keys: {', '.join(row)}")
            elif problem := value_problem({column: row[column] for column in fields}):
                if is_text(text):
                    bad_rows.add(f"{path}:{line}", problem)
                else:
                    bad_rows.add(f"{path}:{line}", f"bytes that are not {data.encoding}", allowed="another data.encoding, e.g. latin-1")
            else:
                yield line, [json.dumps(row[column]) for column in fields]

    with open_text(path, data.encoding) as file:
        columns, lines = store_rows(usable(file), list(fields), decode=json.loads)
    if not seen:
        named = FORMATS_BY_ENDING.get(path.suffix.lower(), "jsonl")
        fix = f"data.format={named}" if named != "jsonl" else "one {...} a line, without [ ] around them; or another data.format"
        raise ConfigError(*bad_rows.problems[:MAX_NAMED_ROWS], Problem("no line is a JSON object with keys", str(path), "data.format", fix=fix))
    check_columns(list(seen), fields, str(path), data)
    return Split(columns, str(path), lines, is_text_file=True)


def _read_parquet(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, fields, str(path), data)
            batches = (batch.select(list(fields)) for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=list(fields)))
            columns = store_batches(map(_whole, batches), len(fields))
            num_rows = file.metadata.num_rows
    except pyarrow.ArrowInvalid as error:
        raise ConfigError(Problem(f"is not a whole parquet file: {error}", where=str(path), key="data.source")) from error
    return Split(dict(zip(fields, map(ArrowColumn, columns), strict=True)), str(path), range(num_rows), is_text_file=False)


def _whole(batch: Any) -> Any:
    """Returns a record batch whose texts are UTF-8: not every program that writes parquet looks."""
    batch.validate(full=True)
    return batch


def _read_text(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Reads one text a line, in a column called text; blank lines are none."""
    if data.columns is not None:
        raise ConfigError(Problem("lines of text have one column, which is called text", str(path), "data.columns", fix="data.columns=null"))
    check_columns(["text"], fields, str(path), None)

    def usable(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        for line, text in enumerate(file, start=1):
            if not is_text(text):
                bad_rows.add(f"{path}:{line}", f"bytes that are not {data.encoding}", allowed="another data.encoding, e.g. latin-1")
            elif text.strip():
                yield line, [text.strip()]

    with open_text(path, data.encoding) as file:
        columns, lines = store_rows(usable(file), list(fields))
    return Split(columns, str(path), lines, is_text_file=True)


READERS: dict[str, Callable[[Path, Data, Fields, BadRows], Split]] = {
    "csv": _read_table,
    "tsv": _read_tsv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "text": _read_text,
    "conll": read_conll,
    "squad": read_squad,
}


def _table_rows(reader: Any, path: str, bad_rows: BadRows) -> Iterator[tuple[int, list[str]]]:
    """Yields the line a row starts on, and its fields."""
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad_rows.add(f"{path}:{line}", f"not valid: {error}")
            continue
        if values:
            yield line, values


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
