"""Carries a plan out on this machine: writes the run directory, then becomes the agent of its only node."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

from launch.agent import Outcome, run_members, terminal_width
from launch.config.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, FullrankError, Problem
from launch.config.lock import RunLock, lock_run
from launch.config.new_run import create_attempt, create_run_dir, writing
from launch.config.own_code import copy_code
from launch.config.run_dir import Cause, RunDir, State, read_json, update_status, write_atomic
from launch.config.stop_file import read_stop_file, remove_stop_file
from launch.failures import Failure
from launch.members import Member
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.plan_script import ScriptPlan
from launch.ports import held_port
from launch.probe import Code, Probe, read_diff, read_untracked
from launch.processes import process_start
from launch.render import launch_argv, launch_environment, rank_environment, render_attempt, render_files, render_resolved
from launch.runs import check_resumable
from launch.stop_signals import stop_deadline_s

_SNAPSHOT_SUFFIXES = frozenset((".py", ".yaml", ".yml", ".toml", ".sh", ".sbatch", ".j2"))
_SNAPSHOT_LARGEST_BYTES = 256 * 1024
"""Untracked files that are copied into code/: source code only, so that data and secrets stay where they are."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, and the plan that was carried out (its port may differ from the one asked for).

    Args:
        was_told: rank 0 has said itself that it stopped, and how to go on.
    """

    plan: LaunchPlan
    outcome: Outcome
    state: State
    was_told: bool = False


def start(plan: LaunchPlan, probe: Probe) -> Ended:
    """Makes the run directory and trains in it until the attempt ends.

    Raises:
        ConfigError: the run directory exists or cannot be written, or FULLRANK_STOP_DEADLINE is no number.
        FullrankError: no port is free.
    """
    stop_deadline_s()  # a mistake in it is told before anything is made
    with ExitStack() as held:
        plan = replace(plan, port=_held_port(plan, held))
        files = render_files(plan, probe)
        run = create_run_dir(plan.run.path.parent, plan.name, plan.run.path)
        with writing(run):
            lock = held.enter_context(lock_run(run))
            plan = replace(plan, run=run, attempt=create_attempt(run))
            for name, text in files.items():
                write_atomic(run.path / name, text)
            write_code(run, probe.code)
            if isinstance(plan, ScriptPlan):
                write_sources(run, plan)
            if isinstance(plan, ExperimentPlan):
                copy_code(plan.experiment, plan.loaded.path, run.code)
            _write_start(plan)
        return _train(plan, lock)


def resume(plan: LaunchPlan, probe: Probe) -> Ended:
    """Starts the next attempt in a run directory that is there; train.py goes on from the newest checkpoint.

    Raises:
        StateError: the run is alive, or done by now.
        ConfigError: the run directory cannot be written, or FULLRANK_STOP_DEADLINE is no number.
    """
    stop_deadline_s()
    with ExitStack() as held:
        plan = replace(plan, port=_held_port(plan, held))
        with writing(plan.run):
            lock = held.enter_context(lock_run(plan.run))
            check_resumable(plan.run, plan.optimizer_steps if isinstance(plan, ExperimentPlan) else None)  # again, now that nobody else can change it
            plan = replace(plan, attempt=create_attempt(plan.run))
            for name, text in render_attempt(plan, probe).items():
                write_atomic(plan.attempt.path / name, text)
            if isinstance(plan, ExperimentPlan):
                write_atomic(plan.run.resolved, render_resolved(plan))  # what changed stays so in later attempts
                update_status(plan.run, forced_changes=[str(change) for change in plan.forced_changes])
            _write_start(plan)
        return _train(plan, lock)


def write_code(run: RunDir, code: Code) -> None:
    """Writes what a later reader needs to have this code again: commit, changes, and small untracked source files."""
    run.code.mkdir()
    write_atomic(run.code / "commit.txt", f"{code.commit or 'no git repository'}\n")
    if code.root is None:
        return
    untracked = read_untracked(code)
    write_atomic(run.code / "changes.diff", read_diff(code) + "\n")
    write_atomic(run.code / "untracked.txt", "".join(f"{name}\n" for name in untracked))
    for name in untracked:
        source, target = code.root / name, run.code / "untracked" / name
        if source.suffix in _SNAPSHOT_SUFFIXES and source.is_file() and source.stat().st_size <= _SNAPSHOT_LARGEST_BYTES:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def write_sources(run: RunDir, plan: ScriptPlan) -> None:
    """Copies the script and its own modules, in a repository or not."""
    for source in plan.sources:
        target = run.code / "script" / source.relative_to(plan.script.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _held_port(plan: LaunchPlan, held: ExitStack) -> int:
    """Returns the port where the ranks will meet; it is this launch's until `held` is closed."""
    port = held.enter_context(held_port(plan.port)) if plan.world_size > 1 else plan.port
    if port is None:
        raise FullrankError(Problem(f"ports {plan.port} to {plan.port + 19} are all taken", fix="start again: another run id means another port"))
    return port


def _write_start(plan: LaunchPlan) -> None:
    mine = {"pid": os.getpid(), "start": process_start(os.getpid()), "attempt": plan.attempt.number}
    update_status(
        plan.run,
        experiment=plan.name,
        state="running",
        cause=None,
        message=None,
        attempt=plan.attempt.number,
        backend="local",
        job_id=None,
        host=os.uname().nodename,
        pid=os.getpid(),
        agent=mine,
        world_size=plan.world_size,
        is_debug=plan.mode.is_debug,
        overfits_batch=plan.mode.overfits_batch,
        verdict=None,
        total_steps=plan.optimizer_steps if isinstance(plan, ExperimentPlan) else None,
        started=time.time(),
        ended=None,
    )


def _train(plan: LaunchPlan, lock: RunLock) -> Ended:
    try:
        is_script = isinstance(plan, ScriptPlan)
        meeting_port = plan.port if is_script and plan.launcher == "direct" and plan.world_size > 1 else None
        outcome = _settled(run_members(_members(plan), plan.attempt, is_script, lock.beat, meeting_port), plan)
    except BaseException as error:
        _write_end(plan.run, state="failed", message=f"the launcher itself failed: {error}", ended=time.time())
        raise
    state, told = _script_state(plan, outcome) if isinstance(plan, ScriptPlan) else _state(outcome), read_json(plan.run.status) or {}
    changes: dict[str, object] = {"state": state, "ended": time.time()}
    if state == "stopped":
        changes["cause"] = told.get("cause") or _cause(plan, outcome)
    if outcome.failure:
        changes["message"] = _headline(outcome.failure)
    _write_end(plan.run, **changes)
    remove_stop_file(plan.attempt.stop_file)  # it was for this attempt
    return Ended(plan, outcome, state, was_told=state == told.get("state") == "stopped")


def _write_end(run: RunDir, **changes: object) -> None:
    """How the attempt ended is told also when the disk is full."""
    try:
        update_status(run, **changes)
    except OSError as error:
        print(f"warning: {run.status} cannot be written: {error.strerror}", file=sys.stderr)


def _members(plan: LaunchPlan) -> list[Member]:
    width = terminal_width()
    shared = {"FULLRANK_RUN_DIR": str(plan.run.path), "FULLRANK_ATTEMPT": str(plan.attempt.number), "PYTHONUNBUFFERED": "1"}
    on_terminal = {"FULLRANK_TERMINAL_WIDTH": "0" if plan.mode.is_debug else str(width)} if width else {}
    argv, folder = launch_argv(plan), None
    if isinstance(plan, ScriptPlan):
        folder = plan.folder
        shared |= {"FULLRANK_STOP_FILE": str(plan.attempt.stop_file)}
        newest, published = plan.run.newest_checkpoint(), plan.run.published_checkpoints()
        if newest:
            shared["FULLRANK_RESUME_FROM"] = str(newest)
        if published and published[-1] != newest:
            print(f"warning: {published[-1]} is damaged; FULLRANK_RESUME_FROM names {newest or 'none'}", file=sys.stderr)
    if plan.launcher != "direct":
        return [Member(None, argv, {**launch_environment(plan), **shared, **on_terminal}, plan.attempt.job_log, on_terminal=True, folder=folder)]
    return [
        Member(
            rank,
            argv,
            {**rank_environment(plan, rank), **shared, **(on_terminal if rank == 0 else {})},
            plan.attempt.rank_log(rank),
            on_terminal=rank == 0,
            folder=folder,
            is_attached=plan.mode.is_debug,
        )
        for rank in range(plan.processes_per_node)
    ]


def _settled(outcome: Outcome, plan: LaunchPlan) -> Outcome:
    """Returns the outcome, taken from status.json where a stock launcher turned the ranks' agreed stop into exit code 1."""
    status = read_json(plan.run.status) or {}
    if isinstance(plan, ScriptPlan) or plan.launcher == "direct" or outcome.exit_code != EXIT_FAILED or status.get("state") != "stopped":
        return outcome
    plan.attempt.failure.unlink(missing_ok=True)
    return Outcome(EXIT_INTERRUPTED if status.get("cause") == "user" else EXIT_STOPPED, outcome.codes)


def _state(outcome: Outcome) -> State:
    return {EXIT_DONE: "completed", EXIT_STOPPED: "stopped", EXIT_INTERRUPTED: "stopped"}.get(outcome.exit_code, "failed")  # type: ignore[return-value]


def _script_state(plan: ScriptPlan, outcome: Outcome) -> State:
    """A script has stopped if that was asked for, and it said so: through should_stop(), or by an exit code that is not 0."""
    if outcome.failure:
        return "failed"
    was_asked = bool(outcome.heard) or plan.attempt.stop_file.exists()
    return "stopped" if plan.attempt.agreed_stop.exists() or (was_asked and any(outcome.codes)) else "completed"


def _cause(plan: LaunchPlan, outcome: Outcome) -> Cause:
    for path in (plan.attempt.agreed_stop, plan.attempt.stop_file):
        if said := read_stop_file(path):
            return said
    return "user" if outcome.exit_code == EXIT_INTERRUPTED or signal.SIGINT in outcome.heard else "preempted"


def _headline(failure: Failure) -> str:
    return f"{failure.exception}: {failure.message}" if failure.exception else failure.message
