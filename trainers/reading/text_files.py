"""Opens text files of any encoding, and finds what is none."""

from __future__ import annotations

import io
from pathlib import Path

from launch.config.errors import ConfigError
from launch.config.row_files import encoding_problem


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
