"""`fullrank cancel`: stops a run, for good."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import Annotated

import typer

from launch.cli.options import Json, RunName, RunRoot, chosen_run, default_run_root
from launch.config.errors import Problem, StateError
from launch.config.run_dir import RunDir, read_json, update_status, write_atomic
from launch.runs import ALIVE, RunState, read_run
from launch.scheduler.commands import cancel_job, forbid_requeue
from launch.scheduler.jobs import Jobs, job_ids
from launch.scheduler.sweeps import Sweep, find_sweep

_POLL_S = 1.0


def cancel(
    run: RunName = "latest",
    now: Annotated[bool, typer.Option("--now", help="At once, without a checkpoint.")] = False,
    wait: Annotated[int, typer.Option("--wait", min=0, metavar="SECONDS", help="How long to wait for the run to save and leave.")] = 600,
    run_root: RunRoot = None,
    as_json: Json = False,
) -> None:
    if sweep := find_sweep(run, run_root or default_run_root()):
        _cancel_sweep(sweep, now)
        return
    found = chosen_run(run, run_root)
    state = read_run(found)
    if state.state not in ALIVE:
        raise StateError(Problem(f"there is nothing to cancel: the run is {state.state}", where=str(found.path), fix=f"fullrank status {found.path}"))
    write_atomic(found.cancelled, "fullrank cancel\n")  # first: whatever happens from here on, no job starts it again
    ended = _cancel_job(found, state, now, wait) if state.status.get("backend") == "slurm" else _cancel_process(found, state, now, wait)
    if as_json:
        print(json.dumps(ended.as_dict(), indent=2))
    else:
        print(_ending(ended))


def _ending(state: RunState) -> str:
    """Returns what became of the run; one that completes its last step, or saves for longer than was waited for, is not cancelled."""
    step = f" at step {state.status['step']}" if state.status.get("step") is not None else ""
    if state.state == "completed":
        return f"completed{step}, before it heard of it: there is nothing left to cancel, or to go on with"
    if state.state in ALIVE:
        return f"still {state.state}{step}: it has been asked to save and leave; at once: fullrank cancel {state.run.path} --now"
    return f"{state.state}{step}; fullrank resume {state.run.path} would go on with it"


def _cancel_sweep(sweep: Sweep, now: bool) -> None:
    """Tasks that wait are taken from the queue, those that train are asked to save; returns without waiting for them."""
    jobs, arrays, num_asked = Jobs(), set(), 0
    for run in sweep.runs:
        state = read_run(run, jobs)
        if state.state not in ALIVE:
            continue
        write_atomic(run.cancelled, "fullrank cancel\n")
        arrays.add(str(state.status.get("job_id")).partition("_")[0])
        if state.state in ("running", "stopping") and not now:
            _write_stop_file(run)
            num_asked += 1
        else:
            update_status(run, state="cancelled", cause="cancelled", ended=time.time())
    for array in arrays:
        forbid_requeue(array)
        cancel_job(array, waiting_only=not now)
    print(f"cancelled; {num_asked} running tasks were asked to save and leave" if num_asked else "cancelled")


def _cancel_job(run: RunDir, state: RunState, now: bool, wait_s: float) -> RunState:
    """A job that waits is taken from the queue; one that trains is asked to save, and ends by itself."""
    jobs = job_ids(run, state.status)
    for job in jobs:
        forbid_requeue(job)  # also if Slurm preempts it while it saves
    if not now and state.state in ("running", "stopping"):
        _write_stop_file(run)
        print(f"asked to save and leave; waiting up to {wait_s} s (--now: at once)", file=sys.stderr)
        deadline = time.monotonic() + wait_s
        while read_run(run).state in ALIVE and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    for job in jobs:
        cancel_job(job)
    if (read_json(run.status) or {}).get("state") in ALIVE:  # nobody is left to say so
        update_status(run, state="cancelled", cause="cancelled", ended=time.time())
    return read_run(run)


def _cancel_process(run: RunDir, state: RunState, now: bool, wait_s: float) -> RunState:
    """The agent here passes the stop on; a training on another machine reads it from the stop file."""
    _write_stop_file(run)
    pid, is_here = (state.status.get("agent") or {}).get("pid") or state.status.get("pid"), state.status.get("host") == os.uname().nodename
    if now and not is_here:
        what = f"it runs on {state.status.get('host')}, and only a process there could end it at once"
        raise StateError(Problem(what, where=str(run.path), fix="log in there; or without --now"))
    if is_here and pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL if now else signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    while read_run(run).state in ALIVE and time.monotonic() < deadline:
        time.sleep(0.1)
    ended = read_run(run)
    if ended.state in ("stopped", "lost"):
        update_status(run, state="cancelled", cause="cancelled", ended=time.time())
    return read_run(run)


def _write_stop_file(run: RunDir) -> None:
    attempt = run.last_attempt()
    if attempt is not None:
        write_atomic(attempt.stop_file, "cancelled\n")
