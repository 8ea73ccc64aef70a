"""Reads the splits of a data set, row by row accountable: csv, tsv, jsonl, parquet, and data sets of the hub.

Text files are read with the standard library and no more: importing pandas or the `datasets` library costs every start 0.5 to
0.9 s (measured warm, 2 cores), so the library is loaded only for what it alone can read.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Data
from launch.config.sources import HubName
from trainers.sources import MISSING_HUB_FIX, locate, use_hub_cache_if_unreachable

READERS_BY_ENDING = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
MAX_NAMED_ROWS = 20
Fields = Mapping[str, str]
"""Column that is wanted -> the key of the experiment that names it."""


@dataclass(frozen=True)
class Split:
    """The wanted columns of one split, in the order of the source.

    Args:
        columns: column -> one value a row.
        origin: file, or `NAME, split train`.
        rows: line of each row in the file, from 1; or its index in the split of a data set, from 0.
        is_text_file: whether `rows` are lines.
        class_names: column -> names of its classes, where the source says so (the hub's ClassLabel).
    """

    columns: dict[str, Sequence[Any]]
    origin: str
    rows: Sequence[int]
    is_text_file: bool
    class_names: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, index: int) -> str:
        """Returns where a row stands: `train.tsv:12`, or `glue, split train, row 12`."""
        return f"{self.origin}:{self.rows[index]}" if self.is_text_file else f"{self.origin}, row {self.rows[index]}"

    def select(self, indices: Sequence[int]) -> Split:
        """Returns the split with these rows alone, in this order."""
        columns = {name: [values[i] for i in indices] for name, values in self.columns.items()}
        return replace(self, columns=columns, rows=[self.rows[i] for i in indices])


class BadRows:
    """Rows that cannot be used: with `skip` listed, with `stop` an error that names them."""

    def __init__(self, on_bad_row: str) -> None:
        self.problems: list[Problem] = []
        self._stops = on_bad_row == "stop"

    def add(self, place: str, what: str, allowed: str | None = None) -> None:
        self.problems.append(Problem(what, place, allowed=allowed))

    def check(self) -> None:
        """Ends with all bad rows at once, unless they are to be skipped.

        Raises:
            ConfigError: names the first of them, and how many more there are.
        """
        if not (self._stops and self.problems):
            return
        named, more = self.problems[:MAX_NAMED_ROWS], len(self.problems) - MAX_NAMED_ROWS
        last = f"{more} more rows cannot be used" if more > 0 else "rows that cannot be used stop the training"
        raise ConfigError(*named, Problem(last, key="data.on_bad_row", fix="mend them, or data.on_bad_row=skip to leave them out"))


def load_splits(data: Data, fields: Fields, bad_rows: BadRows) -> dict[str, Split]:
    """Returns the splits that the source itself has, each with the wanted columns.

    Raises:
        ConfigError: a source, file, split or column that is not there; with on_bad_row `stop`, every broken row.
    """
    source = locate(data.source, "data.source")
    named = {"train": data.splits.train, "validation": data.splits.validation, "test": data.splits.test}
    wanted = {split: name for split, name in named.items() if name is not None}
    if isinstance(source, HubName):
        splits = _read_hub(source.name, source.configuration, data.source, wanted, fields)
    elif source.is_file():
        splits = _read_single_file(source, data, wanted, fields, bad_rows)
    else:
        splits = _read_folder(source, data, wanted, fields, bad_rows)
    bad_rows.check()
    return splits


def divide(splits: Mapping[str, Split], data: Data, seed: int) -> dict[str, Split]:
    """Returns the splits after the fractions have been cut from train and each has been limited.

    A permutation of train's rows by numpy's PCG64 with this seed decides: its first part is validation, the next is test, the
    rest stays train; each part keeps the order of the source. So the parts are disjoint and the same everywhere.

    Raises:
        ConfigError: a split without samples.
    """
    import numpy as np

    divided = dict(splits)
    fractions = {"validation": data.validation_fraction, "test": data.test_fraction}
    if any(fractions.values()):
        train = divided["train"]
        order, start = np.random.default_rng(seed).permutation(len(train)), 0
        for name, fraction in fractions.items():
            if fraction is not None:
                end = start + round(fraction * len(train))
                divided[name] = train.select(np.sort(order[start:end]).tolist())
                start = end
        divided["train"] = train.select(np.sort(order[start:]).tolist())
    for name, split in divided.items():
        if not len(split):
            fraction = fractions.get(name)
            what = f"the {name} split has no samples" + (f": {fraction:g} of {len(splits['train'])} rows is none" if fraction else "")
            raise ConfigError(Problem(what, where=split.origin, key=f"data.{name}_fraction" if fraction else f"data.splits.{name}"))
    if data.limit is not None:
        divided = {name: split.select(range(min(data.limit, len(split)))) for name, split in divided.items()}
    return {name: divided[name] for name in ("train", "validation", "test") if name in divided}


def _read_single_file(path: Path, data: Data, wanted: Mapping[str, str], fields: Fields, bad_rows: BadRows) -> dict[str, Split]:
    """A file is the train split; it has no others."""
    for split, name in wanted.items():
        if split != "train":
            fix = f"data.splits.{split}=null, and data.{split}_fraction=0.1 to cut one from it"
            raise ConfigError(Problem(f"{path} is one file and has no split {name!r}", key=f"data.splits.{split}", fix=fix))
    return {"train": _read_file(path, data, fields, bad_rows)}


def _read_folder(folder: Path, data: Data, wanted: Mapping[str, str], fields: Fields, bad_rows: BadRows) -> dict[str, Split]:
    """Named files are read as they are; split names are left to the hub's rules for folders."""
    files = {split: _file_of_split(folder, name, data) for split, name in wanted.items()}
    splits = {split: _read_file(path, data, fields, bad_rows) for split, path in files.items() if path is not None}
    names = {split: name for split, name in wanted.items() if split not in splits}
    for split, name in names.items():
        if Path(name).suffix or data.format not in ("auto", "hub"):
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
            raise ConfigError(Problem(f"there is no {folder / name}", key=f"data.splits.{split}", allowed=f"a file of the folder: {there}"))
    return splits | (_read_hub(str(folder), None, str(folder), names, fields) if names else {})


def _file_of_split(folder: Path, name: str, data: Data) -> Path | None:
    """Returns the file that a split's name means: itself, or `train` with the ending of data.format."""
    endings = [ending for ending, reader in READERS_BY_ENDING.items() if reader == data.format]
    return next((path for path in (folder / name, *(folder / f"{name}{ending}" for ending in endings)) if path.is_file()), None)


def _read_file(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    name = READERS_BY_ENDING.get(path.suffix.lower()) if data.format == "auto" else data.format
    if name not in READERS:
        what = f"{path.name} does not say by its ending how to read it" if data.format == "auto" else f"{data.format} is not the format of a file"
        raise ConfigError(Problem(what, where=str(path), key="data.format", allowed=", ".join(READERS)))
    try:
        return READERS[name](path, data, fields, bad_rows)
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror or error}", where=str(path), key="data.source")) from error
    except LookupError as error:
        raise ConfigError(Problem(f"there is no encoding {data.encoding!r}", key="data.encoding", allowed="utf-8, latin-1, cp1252, ...")) from error
    except UnicodeError as error:
        raise ConfigError(Problem(f"is not {data.encoding}: {error}", where=str(path), key="data.encoding")) from error


def _read_table(path: Path, data: Data, fields: Fields, bad_rows: BadRows, **dialect: Any) -> Split:
    """Reads csv or tsv; blank lines are not rows, and a line with undecodable bytes is a bad one."""
    csv.field_size_limit(sys.maxsize)
    with _open_text(path, data.encoding) as file:
        rows = _table_rows(csv.reader(file, strict=True, **dialect), str(path), bad_rows)
        first = next(rows, None)
        if first is None:
            raise ConfigError(Problem("the file is empty", where=str(path), key="data.source"))
        names = data.columns or first[1]
        _check_columns(names, fields, str(path), data)
        if data.columns and first[1] == data.columns:
            raise ConfigError(Problem("the first line already holds the names of the columns", f"{path}:1", "data.columns", fix="data.columns=null"))
        positions = {column: names.index(column) for column in fields}
        columns: dict[str, list[str]] = {column: [] for column in fields}
        lines: list[int] = []
        for line, values in (first, *rows) if data.columns else rows:
            if len(values) != len(names):
                what = f"{_counted(len(values), 'field')}, but there are {_counted(len(names), 'column')}: {_shown(', '.join(names))}"
                bad_rows.add(f"{path}:{line}", what)
            elif not _is_text("".join(values)):
                bad_rows.add(f"{path}:{line}", f"bytes that are not {data.encoding}", allowed="another data.encoding, e.g. latin-1")
            else:
                lines.append(line)
                for column, position in positions.items():
                    columns[column].append(values[position])
    return Split(dict(columns), str(path), lines, is_text_file=True)


def _read_tsv(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Tab-separated, without quoting: a quotation mark is a character like any other."""
    return _read_table(path, data, fields, bad_rows, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_jsonl(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    """Reads one JSON object a line."""
    columns: dict[str, list[Any]] = {column: [] for column in fields}
    lines: list[int] = []
    seen: dict[str, None] = {}
    with _open_text(path, data.encoding) as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                bad_rows.add(f"{path}:{line}", f"not valid JSON: {error}" if _is_text(text) else f"bytes that are not {data.encoding}")
                continue
            if not isinstance(row, dict):
                bad_rows.add(f"{path}:{line}", f"{_shown(text.strip())} is not a JSON object")
                continue
            seen.update(dict.fromkeys(row))
            missing = [column for column in fields if column not in row]
            if missing:
                bad_rows.add(f"{path}:{line}", f"has no {' and no '.join(map(repr, missing))}", allowed=f"its keys: {', '.join(row)}")
            elif not all(_is_text(value) for column in fields if isinstance(value := row[column], str)):
                bad_rows.add(f"{path}:{line}", f"bytes that are not {data.encoding}", allowed="another data.encoding, e.g. latin-1")
            else:
                lines.append(line)
                for column in fields:
                    columns[column].append(row[column])
    _check_columns(list(seen), fields, str(path), data)
    return Split(dict(columns), str(path), lines, is_text_file=True)


def _read_parquet(path: Path, data: Data, fields: Fields, bad_rows: BadRows) -> Split:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(file.schema_arrow.names, fields, str(path), data)
            table = file.read(columns=list(fields))
    except pyarrow.ArrowInvalid as error:
        raise ConfigError(Problem(f"is not a whole parquet file: {error}", where=str(path), key="data.source")) from error
    return Split({column: table.column(column).to_pylist() for column in fields}, str(path), range(table.num_rows), is_text_file=False)


READERS: dict[str, Callable[[Path, Data, Fields, BadRows], Split]] = {
    "csv": _read_table,
    "tsv": _read_tsv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}


def _read_hub(name: str, configuration: str | None, shown: str, wanted: Mapping[str, str], fields: Fields) -> dict[str, Split]:
    """Reads a data set of the hub, or a local folder laid out like one, with the `datasets` library."""
    is_remote = shown != name or not Path(name).is_dir()
    if is_remote:
        use_hub_cache_if_unreachable()
    import datasets

    datasets.utils.logging.set_verbosity_error()
    try:
        found = datasets.load_dataset(name, configuration)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0]
        fix = MISSING_HUB_FIX if is_remote else "name the files: data.splits.train=FILE (csv, tsv, jsonl, parquet)"
        raise ConfigError(Problem(f"the data set {shown} cannot be loaded: {reason}", key="data.source", fix=fix)) from error
    splits = {}
    for split, split_name in wanted.items():
        if split_name not in found:
            raise ConfigError(Problem(f"{shown} has no split {split_name!r}", key=f"data.splits.{split}", allowed=f"{', '.join(found)}, or null"))
        rows = found[split_name]
        origin = f"{shown}, split {split_name}"
        _check_columns(rows.column_names, fields, origin, None)
        features = {column: rows.features[column] for column in fields}
        class_names = {column: list(feature.names) for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
        columns = {column: list(rows[column]) for column in fields}
        splits[split] = Split(columns, origin, range(len(rows)), is_text_file=False, class_names=class_names)
    return splits


def _check_columns(names: Sequence[str], fields: Fields, origin: str, data: Data | None) -> None:
    """Raises ConfigError for a wanted column that is not there, or a name that stands twice."""
    fix = "data.columns=[...] if the file has no header" if data is not None and data.columns is None and data.format != "parquet" else None
    allowed = f"the columns: {_shown(', '.join(names), 200)}"
    problems = [Problem(f"there is no column {name!r}", origin, key, allowed, fix) for name, key in fields.items() if name not in names]
    problems += [Problem(f"the column {name!r} stands {names.count(name)} times", origin, "data.columns") for name in fields if names.count(name) > 1]
    if problems:
        raise ConfigError(*problems)


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


def _open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Opens a text file so that undecodable bytes become surrogates, which _is_text finds; a UTF-8 byte order mark is dropped."""
    name = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    return path.open(encoding=name, errors="surrogateescape", newline="")


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _shown(text: str, width: int = 80) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
