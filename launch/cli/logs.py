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
_QUEUE_POLL_S = 3.0
"""How often Slurm is asked; its controller serves a whole cluster."""


def logs(
    run: RunName = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends, over its attempts.")] = False,
    rank: Annotated[int, typer.Option("--rank", min=0, metavar="N", help="Whose log.")] = 0,
    node: Annotated[int | None, typer.Option("--node", min=0, metavar="N", help="What the agent of node N of a Slurm job says instead.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, metavar="N", help="Of which attempt. Default: the newest.")] = None,
    run_root: RunRoot = None,
) -> None:
    found = chosen_run(run, run_root)
    if follow:
        _wait_for_start(found, rank, node)
    chosen = found.attempt(attempt) if attempt else found.last_attempt()
    path = find_log(found, chosen, rank, node)
    with path.open("rb") as file:
        for data in _following(file, found, path, rank, node) if follow else iter(lambda: file.read(1 << 16), b""):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


def _wait_for_start(run: RunDir, rank: int, node: int | None) -> None:
    """Returns when the log is there, or the run is no longer alive; says why a job waits."""
    told = None
    while (attempt := run.last_attempt()) is None or not _log_of(attempt, rank, node).is_file():
        state = read_run(run)
        if state.state not in ALIVE or state.status.get("backend") != "slurm":
            return
        if state.note != told:
            told = state.note
            print(f"{state.state}: {told}", file=sys.stderr)
        time.sleep(_QUEUE_POLL_S)


def _log_of(attempt: Attempt, rank: int, node: int | None) -> Path:
    return attempt.rank_log(rank) if node is None else attempt.node_log(node)


def find_log(run: RunDir, attempt: Attempt | None, rank: int, node: int | None = None) -> Path:
    """Returns the log of a rank or of a node's agent, or the whole job's where a stock launcher wrote one log for all.

    Raises:
        StateError: there is none.
    """
    if attempt is not None and attempt.path.is_file():
        raise StateError(Problem("is a file, and should be the folder of an attempt", where=str(attempt.path), fix=f"mv {attempt.path} elsewhere"))
    if attempt is None or not attempt.path.is_dir():
        raise StateError(
            Problem(
                "there is no such attempt", where=str(run.path), allowed=", ".join(path.name for path in sorted(run.attempts.glob("[0-9]*"))) or None
            )
        )
    if node is not None:
        if (path := attempt.node_log(node)).is_file():
            return path
        nodes = ", ".join(str(int(path.stem.split("_")[1])) for path in sorted(attempt.path.glob("node_*.log")))
        what = f"node {node} has no log in this attempt"
        raise StateError(Problem(what, where=str(attempt.path), allowed=f"--node {nodes}" if nodes else "--rank N: this was no job of Slurm's"))
    for path in (attempt.rank_log(rank), attempt.job_log, *sorted(run.job_logs.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)):
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


def _following(file: BinaryIO, run: RunDir, path: Path, rank: int, node: int | None) -> Iterator[bytes]:
    """Yields what is written until the run is no longer alive; goes over to the next attempt's log when there is one."""
    is_alive, ask_at = True, 0.0
    while True:
        if time.monotonic() >= ask_at:
            state = read_run(run)
            is_alive = state.state in ALIVE  # asked first, so that what was written before the end is read after it
            ask_at = time.monotonic() + (_QUEUE_POLL_S if state.status.get("backend") == "slurm" else _POLL_S)
        if data := file.read():
            yield data
            continue
        newest = run.last_attempt()
        log = _log_of(newest, rank, node) if newest else path
        if log != path and log.is_file():
            with log.open("rb") as later:
                yield from _following(later, run, log, rank, node)
            return
        if not is_alive or os.fstat(file.fileno()).st_nlink == 0:
            return
        time.sleep(_POLL_S)
