"""Reads status.json, how a run is doing, or says what is wrong with it."""

from __future__ import annotations

import json
from typing import Any, get_args

from launch.config.errors import Problem, StateError
from launch.config.run_dir import RunDir, State, read_json

_STATES = get_args(State)
_NUMBER, _WHOLE_NUMBER, _TEXT = (int, float), (int,), (str,)
_KINDS: dict[str, tuple[type, ...]] = {
    "state": _TEXT,
    "cause": _TEXT,
    "host": _TEXT,
    "device": _TEXT,
    "step": _WHOLE_NUMBER,
    "total_steps": _WHOLE_NUMBER,
    "attempt": _WHOLE_NUMBER,
    "pid": _WHOLE_NUMBER,
    "heartbeat": _NUMBER,
    "started": _NUMBER,
    "ended": _NUMBER,
    "submitted": _NUMBER,
    "agent": (dict,),
    "job_id": (str, int),
}
"""What the values are that fullrank computes with; each may be null."""
_WORDS: dict[tuple[type, ...], str] = {_NUMBER: "a number", _WHOLE_NUMBER: "a whole number", _TEXT: "a text"}


def read_status(run: RunDir) -> dict[str, Any]:
    """Returns what status.json says; `state` is one of State.

    Raises:
        StateError: it is missing or damaged.
    """
    try:
        status = json.loads(run.status.read_bytes())
    except OSError as error:
        raise _unreadable(run, error.strerror or str(error)) from error
    except ValueError as error:
        raise _unreadable(run, "it is empty" if run.status.stat().st_size == 0 else "it is no whole JSON") from error
    if not isinstance(status, dict):
        raise _unreadable(run, "it holds no JSON object")
    if status.get("state") not in _STATES:
        raise _unreadable(run, f"state: {status.get('state')!r} is no state")
    for key, value in status.items():
        if value is not None and not isinstance(value, _KINDS.get(key, object)):
            raise _unreadable(run, f"{key}: {value!r} is not {_WORDS.get(_KINDS[key], 'what fullrank writes')}")
    return status


def last_known_status(run: RunDir) -> tuple[dict[str, Any], str | None]:
    """Returns what status.json says, and None; or what it said when the newest attempt ended, and in words why it cannot be read itself."""
    try:
        return read_status(run), None
    except StateError as error:
        attempt = run.last_attempt()
        ended = read_json(attempt.ended) if attempt else None
        return ended or {}, error.problems[0].what


def _unreadable(run: RunDir, why: str) -> StateError:
    return StateError(Problem(f"has no readable status.json: {why}", where=str(run.path), fix=_way_out(run)))


def _way_out(run: RunDir) -> str:
    attempt = run.last_attempt()
    if attempt is None:
        return "name a run directory that fullrank or train.py made"
    removed = f"rm -r {run.status}; " if run.status.is_dir() else ""
    if read_json(attempt.ended):
        return f"{removed}cp {attempt.ended} {run.status} (the same, as that attempt ended)"
    return f"{removed}fullrank resume {run.path}, which writes it anew"
