"""What was printed, and could not be written: a full disk, a closed pipe, a terminal that is gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def code_kept(code: int) -> Iterator[None]:
    """How a training ended counts, also where there is no place left to print it.

    Raises:
        typer.Exit: the printing failed; with the code that the training ended with.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise typer.Exit(code) from error


def lost_output(is_suspected: bool = False) -> OSError | None:
    """Returns why something that was printed cannot be written; None: all of it is. What is left of it is dropped: Python would try again at its end.

    Args:
        is_suspected: writing failed somewhere; a stream forgets what it failed to write, so stdout is asked for one line more.
    """
    lost = None
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed before the start
            continue
        try:
            print(end="\n" if is_suspected and stream is sys.stdout else "", file=stream, flush=True)
        except OSError as error:
            lost = lost or error
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
    return lost
