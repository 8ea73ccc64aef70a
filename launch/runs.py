"""How runs are doing: their status files, corrected for runs that died without a word."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.attempts import Started
from launch.config.changes import check_end
from launch.config.errors import Problem, StateError
from launch.config.lock import STALE_S, silence_s
from launch.config.run_dir import Attempt, RunDir, State, began, read_json
from launch.config.status_file import read_status
from launch.processes import process_start
from launch.scheduler.jobs import Jobs

ALIVE: tuple[State, ...] = ("pending", "running", "stopping", "requeued")
_SILENT_S = 600.0
"""A run on another host counts as lost after this long without a heartbeat; rank 0 beats every few seconds, evaluations and saves are longer."""


@dataclass(frozen=True)
class RunState:
    """One run, as it is now.

    Args:
        state: what status.json says, or `lost` if its process is gone.
        status: the rest of status.json.
        note: what Slurm says of its job.
    """

    run: RunDir
    state: State
    status: dict[str, Any]
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"run": str(self.run.path)} | self.status | {"state": self.state} | ({"note": self.note} if self.note else {})


def read_run(run: RunDir, jobs: Jobs | None = None) -> RunState:
    """Returns the state of a run. A run that says it is alive is `lost` if its process, or its job in Slurm, is gone.

    Args:
        jobs: answers of Slurm that several runs share.

    Raises:
        StateError: status.json is missing or damaged.
    """
    status = read_status(run)
    state: State = status["state"]
    if status.get("backend") == "slurm":
        standing = (jobs or Jobs(status.get("submitted"))).standing(run, status)
        return RunState(run, standing.state, status | {"cause": standing.cause}, standing.note)
    return RunState(run, "lost" if state in ALIVE and not is_alive(run, status) else state, status)


@dataclass(frozen=True)
class Unreadable:
    """A run whose status.json is missing or damaged."""

    run: RunDir
    problem: Problem

    def as_dict(self) -> dict[str, Any]:
        return {"run": str(self.run.path), "state": "unreadable", "note": self.problem.what}


def list_runs(root: Path) -> list[RunState | Unreadable]:
    """Returns the runs under a run root, the newest last; Slurm is asked once, however many they are."""
    jobs, found = Jobs(), list[RunState | Unreadable]()
    for path in sorted(_run_folders(root), key=began):
        run = RunDir(Path(path))
        try:
            found.append(read_run(run, jobs))
        except StateError as error:
            if run.status.exists() or run.resolved.is_file():
                found.append(Unreadable(run, error.problems[0]))
    return found


def _run_folders(root: Path) -> Iterator[str]:
    """Yields the folders that may be runs: <root>/<experiment>/<run>, and <root>/<run> where a person named it so.

    Ten thousand are listed in half the time that Path.glob takes.
    """
    for folder in (entry.path for entry in _entries(root) if entry.is_dir()):
        inside = _entries(folder)
        if any(entry.name in ("status.json", "resolved.yaml") for entry in inside):
            yield folder
        else:
            yield from (entry.path for entry in inside if entry.is_dir())


def _entries(path: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def check_resumable(run: RunDir, end: int | None = None) -> None:
    """Refuses a run that is done, still alive, or past its new end. A run that is done goes on to a later end.

    Args:
        end: optimizer steps at the end of the next attempt; None: not known before it starts.

    Raises:
        StateError: says which, and what to do instead.
    """
    state = _last_known(run)
    if state.state == "completed":
        reached = state.status.get("total_steps")
        if end is not None and reached is not None and end > reached:
            return
        what = "the run is completed; there is nothing to go on with"
        longer = f'fullrank resume {run.path} train.duration="{2 * reached} steps" to train on; ' if reached and run.resolved.is_file() else ""
        raise StateError(Problem(what, where=str(run.path), fix=f"{longer}{_started_anew(run)} for a new run"))
    if state.state in ALIVE:
        what = f"the run is still alive: {state.state}, pid {state.status.get('pid')} on {state.status.get('host')}"
        raise StateError(Problem(what, where=str(run.path), fix="wait for it, or stop it first (Ctrl-C, or kill -TERM its pid)"))
    if end is not None:
        check_end(run.path, read_attempts(run)[1], end)


def _last_known(run: RunDir) -> RunState:
    """Returns the state of a run; where status.json cannot be read, that in which its newest attempt ended: `lost` if it did not say so.

    Raises:
        StateError: there was no attempt, or a process on another host shows that it lives.
    """
    try:
        return read_run(run)
    except StateError as error:
        attempt = run.last_attempt()
        if attempt is None or run.status.is_dir():
            raise
        ended = read_json(attempt.ended) or {}
        what = f"it counts how attempt {attempt.number} ended" if ended else f"attempt {attempt.number} did not say how it ended"
        print(f"warning: {run.path} {error.problems[0].what}; {what}", file=sys.stderr)
    if run.cluster.is_file():
        standing = Jobs().standing(run, {"state": "running"} | ended)
        return RunState(run, standing.state, ended, standing.note)
    holder = (read_json(run.lock) or {}).get("host")
    if holder not in (None, socket.gethostname()) and silence_s(run) < STALE_S:
        fix = f"if nothing trains there, wait {STALE_S:.0f} s"
        raise StateError(Problem(f"the run may be alive on {holder}, and its status.json cannot be read", where=str(run.path), fix=fix))
    return RunState(run, ended.get("state", "lost"), ended)


def _started_anew(run: RunDir) -> str:
    """Returns what to type for a new run of what a run was made of."""
    attempt = run.last_attempt()
    last = (read_json(attempt.plan) if attempt else None) or {}
    if "script" not in last:
        return f"fullrank run {run.resolved}"
    arguments = shlex.join(last.get("arguments") or ())
    return f"fullrank run --script {shlex.quote(last['script'])}" + (f" -- {arguments}" if arguments else "")


def read_attempts(run: RunDir) -> tuple[list[Started], int]:
    """Returns the attempts of a run in order, and the step of its newest complete checkpoint (0: none)."""
    paths = sorted(run.attempts.glob("[0-9]*")) if run.attempts.is_dir() else []
    steps = [(read_json(Attempt(path).start) or {}).get("first_step") for path in paths]
    newest = run.newest_checkpoint()
    step = newest.name.rpartition("-")[2] if newest else ""
    return [Started(int(path.name), step) for path, step in zip(paths, steps, strict=True)], int(step) if step.isdecimal() else 0


def is_alive(run: RunDir, status: dict[str, Any]) -> bool:
    """Returns whether the process behind a status lives: looked up on its own host, guessed from its signs of life on another one."""
    if status.get("host") != socket.gethostname():
        return silence_s(run) < _SILENT_S
    agent = status.get("agent") or {}
    if agent.get("attempt") != status.get("attempt"):
        agent = {}  # of an earlier attempt: this one was started without fullrank
    pid = agent.get("pid") or status.get("pid")
    started = process_start(int(pid)) if pid else None
    return started is not None and agent.get("start") in (None, started)
