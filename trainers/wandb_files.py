"""Reads W&B's own files back: what a .wandb file holds, up to a torn end."""

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
    from wandb.proto.wandb_internal_pb2 import Record

    for payload in _payloads(path.read_bytes()):
        record = Record()
        record.ParseFromString(payload)
        yield record


def run_files(folder: Path) -> list[Path]:
    """Returns the .wandb files below a run's wandb folder, oldest first."""
    return sorted(folder.glob("*run-*/run-*.wandb"), key=lambda path: path.parent.name.removeprefix("offline-"))


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
