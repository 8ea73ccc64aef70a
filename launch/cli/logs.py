"""`fullrank logs`: the log of a run's newest attempt."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from launch.cli.options import RunName, RunRoot, chosen_run
from launch.config.errors import Problem, StateError
from launch.config.run_dir import Attempt, RunDir
from launch.runs import ALIVE, read_run

_POLL_S = 0.2


def logs(
    run: RunName = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends, over its attempts.")] = False,
    rank: Annotated[int, typer.Option("--rank", min=0, metavar="N", help="Whose log.")] = 0,
    node: Annotated[int | None, typer.Option("--node", min=0, metavar="N", help="What the agent of node N of a Slurm job says instead.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, metavar="N", help="Of which attempt. Default: the newest.")] = None,
    run_root: RunRoot = None,
) -> None:
    found = chosen_run(run, run_root)
    chosen = found.attempt(attempt) if attempt else found.last_attempt()
    path = find_log(found, chosen, rank)
    with path.open("rb") as file:
        for data in _following(file, found, path, rank) if follow else iter(lambda: file.read(1 << 16), b""):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


def find_log(run: RunDir, attempt: Attempt | None, rank: int) -> Path:
    """Returns the log of a rank, or the whole job's where a stock launcher wrote one log for all.

    Raises:
        StateError: there is none.
    """
    if attempt is None or not attempt.path.is_dir():
        raise StateError(
            Problem(
                "there is no such attempt", where=str(run.path), allowed=", ".join(path.name for path in sorted(run.attempts.glob("[0-9]*"))) or None
            )
        )
    for path in (attempt.rank_log(rank), attempt.job_log):
        if path.is_file():
            return path
    ranks = ", ".join(str(int(path.stem.split("_")[1])) for path in sorted(attempt.path.glob("rank_*.log")))
    raise StateError(
        Problem(
            f"rank {rank} has no log in this attempt",
            where=str(attempt.path),
            allowed=f"--rank {ranks}" if ranks else "none was written: the training was started without fullrank",
        )
    )


def _following(file: BinaryIO, run: RunDir, path: Path, rank: int) -> Iterator[bytes]:
    """Yields what is written until the run is no longer alive; goes over to the next attempt's log when there is one."""
    while True:
        is_alive = read_run(run).state in ALIVE  # asked first, so that what was written before the end is read after it
        if data := file.read():
            yield data
            continue
        newest = run.last_attempt()
        log = newest.rank_log(rank) if newest else path
        if log != path and log.is_file():
            with log.open("rb") as later:
                yield from _following(later, run, log, rank)
            return
        if not is_alive or os.fstat(file.fileno()).st_nlink == 0:
            return
        time.sleep(_POLL_S)
