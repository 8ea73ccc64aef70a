"""Opens text files of any encoding, and finds what is no text in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from launch.config.errors import ConfigError
from launch.config.row_files import encoding_problem
from trainers.reading.rows import shortened

MAX_NESTED = 20
"""Lists in lists of a JSON value; Python's own limit depends on who reads it."""


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Opens a text file so that undecodable bytes become surrogates, which is_text finds; a UTF-8 byte order mark is dropped.

    Raises:
        ConfigError: the byte order mark is UTF-16's, and the encoding is another.
    """
    with path.open("rb") as file:
        if problem := encoding_problem(path, file.read(2), encoding):
            raise ConfigError(problem)
    name = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    return path.open(encoding=name, errors="surrogateescape", newline="")


def is_text(text: str) -> bool:
    """Returns whether a line of open_text was decoded whole."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def value_problem(value: Any, room: int = MAX_NESTED) -> str | None:
    """Returns why a value of a JSON file cannot be used: lists in lists in lists, or half of a character; None if nothing is wrong."""
    if isinstance(value, str):
        return None if is_text(value) else f"{shortened(ascii(value))} has half of a character: \\ud800 to \\udfff stand in pairs"
    if not isinstance(value, list | dict):
        return None
    if not room:
        return f"lists stand in lists more than {MAX_NESTED} deep"
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return next((problem for part in parts if (problem := value_problem(part, room - 1))), None)
