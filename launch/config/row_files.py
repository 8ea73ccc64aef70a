"""How a file of rows is read, by its ending, and what its first bytes tell; for the launcher that looks before and the trainer that reads."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from launch.config.data import Data
from launch.config.errors import Problem

FORMATS_BY_ENDING = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".conll": "conll", ".txt": "text"}

TEXT_FORMATS = ("csv", "tsv", "jsonl", "text", "conll", "squad")

_BEGINNINGS = {
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"PAR1": "a parquet file",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"RIFF": "a recording or a picture",
}
"""What files begin with that are no text. Source: the formats' own specifications."""

_HEAD_BYTES = 4096
_OTHER_FORMAT = "data.format=csv, tsv, jsonl, ..."


def row_format(path: Path, data: Data) -> str | None:
    """Returns how a file is read: by data.format, or by its ending; None: its ending does not say."""
    return FORMATS_BY_ENDING.get(path.suffix.lower()) if data.format == "auto" else data.format


def file_of_split(folder: Path, name: str, data: Data) -> Path | None:
    """Returns the file that a split's name means: itself, or `train` with the ending of data.format; None where there is none."""
    endings = [ending for ending, reader in FORMATS_BY_ENDING.items() if reader == data.format]
    return next((path for path in (folder / name, *(folder / f"{name}{ending}" for ending in endings)) if path.is_file()), None)


def encoding_problem(path: Path, head: bytes, encoding: str) -> Problem | None:
    """Returns what is wrong with a text file that begins with the byte order mark of UTF-16, unless it is read as that."""
    if not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or re.match("utf[-_]?(16|32)", encoding, re.IGNORECASE):
        return None
    what = f"begins with the byte order mark of UTF-16, and is no {encoding}"
    return Problem(what, str(path), "data.encoding", fix="data.encoding=utf-16")


def kind_problem(path: Path, data: Data) -> Problem | None:
    """Returns what is wrong with a file that begins unlike its format; None where its first bytes may be right.

    Raises:
        OSError: the file cannot be read.
    """
    kind = row_format(path, data)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    is_other = next((name for start, name in _BEGINNINGS.items() if head.startswith(start)), None)
    if kind == "parquet" and head and not head.startswith(b"PAR1"):
        what = f"is {is_other}, not parquet" if is_other else "is no parquet file"
        return Problem(what, str(path), "data.format", fix=_OTHER_FORMAT)
    if kind in TEXT_FORMATS and is_other:
        fix = "data.format=parquet" if head.startswith(b"PAR1") else "unpack it" if "archive" in is_other else None
        return Problem(f"is {is_other}, not {kind}", str(path), "data.format", fix=fix)
    if kind in TEXT_FORMATS and (problem := encoding_problem(path, head, data.encoding)):
        return problem
    if kind == "squad" and head.strip() and not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return Problem("is no SQuAD file: it does not begin with {", str(path), "data.format", fix=_OTHER_FORMAT)
    return None
