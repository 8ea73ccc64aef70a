"""Finds the recordings of each split and what is said in them: tables beside sound files, folders, data sets of the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from launch.config.sound_files import is_audio_folder, recordings_of_splits
from launch.config.sources import HubName
from launch.config.tasks.speech_ctc import SpeechCtc
from trainers.datasets import load_splits
from trainers.reading.columns import ArrowColumn
from trainers.reading.rows import BadRows, Split
from trainers.reading.text_files import is_text, open_text
from trainers.sources import locate

FORMATS = ("audio_folder", "csv", "tsv", "jsonl", "parquet", "hub")


def load_recordings(data: Data, options: SpeechCtc, bad_rows: BadRows) -> dict[str, Split]:
    """Returns the splits that the source itself has, with the columns of task.audio and task.text.

    A recording is a path, or a mapping of the hub's form ({bytes, path}).

    Raises:
        ConfigError: a source, a file or a split that is not there, or a recording that two splits have.
    """
    place = locate(data.source, "data.source")
    if data.format not in ("auto", *FORMATS):
        raise ConfigError(Problem(f"{data.format} is no format of recordings", key="data.format", allowed=", ".join(FORMATS)))
    if not isinstance(place, HubName) and is_audio_folder(place, data):
        return _read_folder(place, data, options, bad_rows)
    splits = load_splits(data, {options.audio: "task.audio", options.text: "task.text"}, bad_rows)
    if isinstance(place, HubName):
        return splits
    folder = place if place.is_dir() else place.parent
    return {name: _beside(folder, split, options.audio) for name, split in splits.items()}


def _read_folder(root: Path, data: Data, options: SpeechCtc, bad_rows: BadRows) -> dict[str, Split]:
    """A split is a shell pattern of paths below the source; what is said stands in a recording's name, or in NAME.txt beside it."""
    found, problems = recordings_of_splits(root, data)
    if problems:
        raise ConfigError(*problems)
    splits = {}
    for split, paths in found.items():
        texts = [_said_in(path, options, data.encoding, bad_rows) for path in paths]
        columns: dict[str, Sequence[Any]] = {options.audio: [str(path) for path in paths], options.text: texts}
        splits[split] = Split(columns, str(root), range(len(paths)), is_text_file=False)
    return splits


def _said_in(path: Path, options: SpeechCtc, encoding: str, bad_rows: BadRows) -> str | None:
    """Returns a recording's transcript; None, and a bad row, where nobody says it."""
    if options.name_pattern is not None:
        match = re.fullmatch(options.name_pattern, path.name)
        if match is None:
            bad_rows.add(str(path), f"the name does not match task.name_pattern {options.name_pattern!r}")
        return match["text"] if match else None
    transcript = path.with_suffix(".txt")
    if not transcript.is_file():
        bad_rows.add(str(path), f"has no {transcript.name} beside it, and there is no task.name_pattern")
        return None
    try:
        with open_text(transcript, encoding) as file:
            text = file.read()
    except OSError as error:
        bad_rows.add(str(transcript), f"cannot be read: {error.strerror or error}")
        return None
    except UnicodeError as error:
        bad_rows.add(str(transcript), f"is not {encoding}: {error}", allowed="another data.encoding")
        return None
    if not is_text(text):
        bad_rows.add(str(transcript), f"bytes that are not {encoding}", allowed="another data.encoding, e.g. latin-1")
        return None
    return text


def _beside(folder: Path, split: Split, column: str) -> Split:
    """Returns the split with paths as seen from here: a table's own are relative to its folder."""
    values = split.columns[column]
    if isinstance(values, ArrowColumn) and len(values) and isinstance(values[0], dict):  # bytes in parquet
        return split
    paths = [str(folder / value) if isinstance(value, str) and value else value for value in values]
    return replace(split, columns={**split.columns, column: paths})
