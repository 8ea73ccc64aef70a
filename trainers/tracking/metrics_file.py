"""Writes metrics.jsonl, the truth about a training, of which every tracker is derived."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.config.metrics import Record, read_metrics


class MetricsFile:
    """metrics.jsonl: one JSON object a line, each (step, split) once, in the order of training.

    A line is on disk for other processes when `append` returns. A last line torn by a kill is dropped on opening. Steps that are
    trained again, because the newest checkpoint is older than the last record, keep their first record: trackers have it already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _drop_torn_line(path)
        self.records: list[Record] = read_metrics(path)
        self.last_step: dict[str, int] = {}
        for record in self.records:
            self.last_step[record["split"]] = max(record["step"], self.last_step.get(record["split"], -1))
        self._file = path.open("ab", buffering=0)

    def append(self, record: Mapping[str, Any]) -> bool:
        """Writes the record unless the file has its step already; returns whether it was new."""
        if record["step"] <= self.last_step.get(record["split"], -1):
            return False
        line, start = json.dumps(record, default=float).encode() + b"\n", self._file.seek(0, os.SEEK_END)
        written = self._file.write(line)
        if written != len(line):
            self._file.truncate(start)  # a full disk must not leave half a line before the next whole one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self.last_step[record["split"]] = record["step"]
        return True

    def close(self) -> None:
        self._file.close()


def _drop_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        number = text.count(b"\n") + 1
        print(
            f"warning: {path}:{number}: the last line was torn by a kill and is dropped; its step is recorded when it is trained again",
            file=sys.stderr,
        )
        os.truncate(path, whole)
