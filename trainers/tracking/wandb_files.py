"""Reads W&B's own files, up to a torn end, and copies what is whole of them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MAGIC = b":W&B\xe1\xbe\x00"
_BLOCK = 32768
_HEADER = 7  # crc32 (4), length (2), kind (1): LevelDB's log format
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the history rows of a .wandb file, each as {metric: value} with W&B's own `_step`."""
    return [_values(record.history.item) for record in read_records(path) if record.HasField("history")]


def read_records(path: Path) -> Iterator[Any]:
    """Yields the wandb.proto Records of a .wandb file; ends without an error where a kill has torn it."""
    for payload in _payloads(path.read_bytes()):
        yield _parsed(payload)


def run_files(folder: Path) -> list[Path]:
    """Returns the .wandb files below a run's wandb folder, oldest first."""
    return sorted(folder.glob("*run-*/run-*.wandb"), key=lambda path: path.parent.name.removeprefix("offline-"))


def copy_part(path: Path, folder: Path, first_row: int) -> Path:
    """Copies the whole records of a .wandb file into a new folder of the same name, less the history before `first_row`; returns the copy.

    The other files of the part (media, requirements) are linked to beside it.
    """
    part = folder / path.parent.name
    part.mkdir(parents=True)
    if (path.parent / "files").is_dir():
        (part / "files").symlink_to((path.parent / "files").absolute())
    copy = part / path.name
    copy.write_bytes(framed(payload for payload in _payloads(path.read_bytes()) if _row_number(payload, first_row) >= first_row))
    return copy


def framed(payloads: Iterator[bytes]) -> bytes:
    """Returns a .wandb file with these records: LevelDB's log format, a record in as many pieces as blocks it touches."""
    data = bytearray(_MAGIC)
    for payload in payloads:
        rest, is_first = payload, True
        while is_first or rest:
            left = _BLOCK - len(data) % _BLOCK
            if left < _HEADER:
                data += bytes(left)
                left = _BLOCK
            piece, rest = rest[: left - _HEADER], rest[left - _HEADER :]
            kind = bytes([(_LAST, _MIDDLE, _FULL, _FIRST)[2 * is_first + bool(rest)]])
            data += zlib.crc32(piece, zlib.crc32(kind)).to_bytes(4, "little") + len(piece).to_bytes(2, "little") + kind + piece
            is_first = False
    return bytes(data)


def _row_number(payload: bytes, otherwise: int) -> int:
    """Returns the `_step` of a record that is a history row."""
    record = _parsed(payload)
    return int(_values(record.history.item)["_step"]) if record.HasField("history") else otherwise


def _parsed(payload: bytes) -> Any:
    from wandb.proto.wandb_internal_pb2 import Record

    record = Record()
    record.ParseFromString(payload)
    return record


def _payloads(data: bytes) -> Iterator[bytes]:
    if not data.startswith(_MAGIC):
        return
    position, parts = len(_MAGIC), bytearray()
    while True:
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:  # too small for a header: padding
            position += left
        header = data[position : position + _HEADER]
        if len(header) < _HEADER:
            return
        length, kind = int.from_bytes(header[4:6], "little"), header[6]
        part = data[position + _HEADER : position + _HEADER + length]
        if len(part) < length or zlib.crc32(part, zlib.crc32(header[6:7])) != int.from_bytes(header[:4], "little"):
            return
        position += _HEADER + length
        parts = bytearray(part) if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield bytes(parts)


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
