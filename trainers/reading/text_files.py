"""Opens text files of any encoding, and finds what is none."""

from __future__ import annotations

import codecs
import io
import re
from pathlib import Path

from launch.config.errors import ConfigError, Problem


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Opens a text file so that undecodable bytes become surrogates, which is_text finds; a UTF-8 byte order mark is dropped.

    Raises:
        ConfigError: the byte order mark is UTF-16's, and the encoding is another.
    """
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and not re.match("utf[-_]?(16|32)", encoding, re.IGNORECASE):
            what = f"begins with the byte order mark of UTF-16, and is no {encoding}"
            raise ConfigError(Problem(what, str(path), "data.encoding", fix="data.encoding=utf-16"))
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
