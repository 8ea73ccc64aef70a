"""Where the output of one rank goes: its log file, the terminal, and the last lines for a report."""

from __future__ import annotations

import collections
import os
import sys
from pathlib import Path

NUM_LAST_LINES = 20


class RankLog:
    """Takes a rank's bytes as they come; never raises, since a full disk must not end a training that could still save.

    The terminal gets the bytes as they are, progress bars included. The file gets of each line what a terminal would
    show in the end: the text after its last carriage return.
    """

    def __init__(self, path: Path, on_terminal: bool) -> None:
        self._file = path.open("ab", buffering=0)
        self._path = path
        self._on_terminal = on_terminal
        self._pending = b""
        self._last: collections.deque[str] = collections.deque(maxlen=NUM_LAST_LINES)

    def write(self, data: bytes) -> None:
        """Adds output."""
        if self._on_terminal:
            self._show(data)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._keep(line)
        if b"\r" in self._pending:  # a progress bar repaints one line for hours: keep its newest picture only
            self._pending = b"\r" + final_text(self._pending)

    def note(self, text: str) -> None:
        """Adds a line of fullrank's own, to the file alone."""
        self._keep(text.encode())

    def close(self) -> None:
        """Writes what has no line end yet, and closes the file."""
        if self._pending.strip():
            self._keep(self._pending)
        self._pending = b""
        self._file.close()

    @property
    def last_lines(self) -> tuple[str, ...]:
        return tuple(self._last)

    def _keep(self, line: bytes) -> None:
        text = final_text(line)
        self._last.append(text.decode("utf-8", errors="replace"))
        try:
            self._file.write(text + b"\n")
        except OSError as error:
            if not self._file.closed:
                self._file.close()
                print(f"warning: {self._path} is not written any more: {error.strerror}", file=sys.stderr, flush=True)
        except ValueError:
            return  # closed by the error above, which was told then

    def _show(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(sys.stderr.fileno(), data) :]
        except OSError:
            self._on_terminal = False  # the terminal is gone; the training goes on


def final_text(line: bytes) -> bytes:
    """Returns what a terminal shows of a line in the end, if each carriage return repaints the whole of it."""
    return next((part for part in reversed(line.split(b"\r")) if part), b"")
