"""The two things a job script asks beside srun: python -P -m launch.scheduler.job begin RUN PYTHON | end ATTEMPT CODE. Answers: stdout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.attempts import may_start_again
from launch.checks.node import differing, look_at_node
from launch.config.errors import EXIT_CONFIG, EXIT_DONE, EXIT_FAILED, FullrankError, Problem
from launch.config.lock import HEARTBEAT_S
from launch.config.new_run import create_attempt
from launch.config.run_dir import Attempt, RunDir, read_json, update_status, write_json
from launch.failures import Failure, render_failure
from launch.probe import free_port
from launch.runs import read_attempts
from launch.scheduler.job_end import Ending, judge_attempt
from launch.scheduler.jobs import Jobs, job_ids, waits_in_vain
from launch.scheduler.lost_nodes import find_lost_nodes, log_size

_TAKE_OVER_S = HEARTBEAT_S + 5

_OVER = {
    "completed": "the run is completed",
    "cancelled": "the run was cancelled",
    "failed": "the run failed; fullrank resume starts it again",
}
"""States in which a job that comes (back) from the queue has nothing to do."""


def main(arguments: list[str]) -> int:
    """Answers one question and returns the exit code."""
    try:
        if arguments[:1] == ["begin"]:
            return begin(RunDir(Path(arguments[1])), arguments[2])
        return end(Attempt(Path(arguments[1])), int(arguments[2]))
    except FullrankError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code


def begin(run: RunDir, python: str) -> int:
    """Prints port and directory of the attempt to start; nothing if the run is over.

    Args:
        python: of the training; one that is not here is inside a container.
    """
    status = read_json(run.status)
    if status is None:
        what = "the run directory is not visible on this node, or has no status.json"
        raise FullrankError(Problem(what, where=str(run.path), fix="run_root in the cluster file on a file system that every node mounts"))
    if run.cancelled.exists():
        status = update_status(run, state="cancelled", cause="cancelled", ended=time.time())
    if reason := _OVER.get(status["state"]):
        print(f"not started: {reason}", file=sys.stderr)
        return EXIT_DONE
    if reason := waits_in_vain(status, Jobs()):
        update_status(run, state="cancelled", cause="cancelled", message=reason, ended=time.time())
        print(f"not started: {reason}", file=sys.stderr)
        return EXIT_FAILED
    before = may_start_again("lost", "node_failed", *read_attempts(run)) if status["state"] in ("running", "stopping") else None
    if before and not before.is_allowed:  # each attempt before this one died without a word
        update_status(run, state="failed", message=before.reason, ended=time.time())
        print(f"not started: {before.reason}", file=sys.stderr)
        return EXIT_FAILED
    lost = describe_loss(run, status)
    if lost:
        print(lost, file=sys.stderr)
    _forget_lock(run, status)
    attempt = next_attempt(run)
    plan: dict[str, Any] = read_json(attempt.plan) or {}
    port = free_port(int(plan.get("port", 0))) if "MASTER_ADDR" in plan.get("environment", {}) else int(plan.get("port", 0))
    if port is None:
        raise FullrankError(Problem(f"ports {plan.get('port')} to {plan['port'] + 19} are all taken on this node", fix="submit again"))
    facts = {name.lower(): os.environ.get(name) for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_RESTART_COUNT", "SLURM_JOB_PARTITION")}
    first = look_at_node(run.path).as_dict() if is_same_python(python) else None
    log = {"log_name": _job_id(), "log_begins": log_size(run, _job_id())}
    write_json(attempt.job, facts | {"port": port, "begun": time.time(), "first_node": first} | log)
    update_status(
        run,
        state="running",
        cause=None,
        message=lost,
        attempt=attempt.number,
        job_id=_job_id() or status.get("job_id"),
        host=os.uname().nodename,
        pid=os.getpid(),
        started=time.time(),
        ended=None,
    )
    print(port, attempt.path)
    return EXIT_DONE


def describe_loss(run: RunDir, status: Mapping[str, Any]) -> str | None:
    """Returns which node was lost with the attempt before; None: it ended in another way, or there was none."""
    if status["state"] == "requeued" and status.get("cause") == "node_failed":
        return str(status.get("message"))  # its end was told
    last = run.last_attempt()
    before = (read_json(last.job) if last else None) or {}
    if status["state"] not in ("running", "stopping") or last is None or not before.get("slurm_job_nodelist"):
        return None
    lost = find_lost_nodes(run, before)
    who = f"{', '.join(lost)} was lost" if lost else f"a node of {before['slurm_job_nodelist']} was lost, or the job was killed there"
    return f"attempt {last.number} ended without a word: {who}; training goes on from the last checkpoint"


def is_same_python(python: str) -> bool:
    """Returns whether the training's python is the one that runs this: asked of it, because it may be a link, a wrapper, or inside a container."""
    if python == sys.executable:
        return True
    try:
        answer = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.strip() == sys.prefix


def _forget_lock(run: RunDir, status: dict[str, Any]) -> None:
    """Removes the lock that a job before this one has left: Slurm starts a requeued job, or the next of a chain, only when that has ended."""
    holder = read_json(run.lock) or {}
    job, host = holder.get("job_id"), holder.get("host")
    is_over = status["state"] in ("pending", "requeued", "stopped")
    if job is None or not (is_over or job in job_ids(run, status)):
        return
    run.lock.unlink(missing_ok=True)
    if not is_over and host != os.uname().nodename:  # a node given up for lost may still train, and sees at its next heartbeat that it is not to
        print(f"job {job} may still be at work on {host}, which is out of reach: {_TAKE_OVER_S:.0f} s for it to notice", file=sys.stderr)
        time.sleep(_TAKE_OVER_S)


def next_attempt(run: RunDir) -> Attempt:
    """Returns the attempt that submit prepared, or a new one like the last, if that was begun before."""
    last = run.last_attempt()
    if last is None:
        raise FullrankError(Problem("there is no attempt to start", where=str(run.path), fix="fullrank submit"))
    if not last.job.exists():
        return last
    attempt = create_attempt(run)
    for path in (last.accelerate, last.deepspeed, last.environment):
        if path.exists():
            shutil.copyfile(path, attempt.path / path.name)
    plan: dict[str, Any] = read_json(last.plan) or {}
    moved = {str(old): str(new) for old, new in ((last.accelerate, attempt.accelerate), (last.deepspeed, attempt.deepspeed))}
    write_json(attempt.plan, plan | {"attempt": attempt.number, "command": [moved.get(word, word) for word in plan.get("command", [])]})
    return attempt


def end(attempt: Attempt, code: int) -> int:
    """Settles how the attempt ended, writes its first failure, and returns the job's exit code.

    Prints what the script is to do then: `requeue` the job, or `cancel` the rest of its chain, which has nothing left to do.
    """
    run = RunDir(attempt.path.parent.parent)
    plan: dict[str, Any] = read_json(attempt.plan) or {}
    reports = [report for path in sorted(attempt.nodes.glob("node_*.json")) if (report := read_json(path)) and "ended" in report]
    lost = find_lost_nodes(run, read_json(attempt.job) or {}) if len(reports) < int(plan.get("nodes", 1)) else []
    status: dict[str, Any] = read_json(run.status) or {}  # last: on a node that is cut off, Slurm does not answer for a minute
    if status.get("attempt") not in (None, attempt.number):
        print(f"attempt {attempt.number} is over: attempt {status['attempt']} has taken the run over", file=sys.stderr)
        return EXIT_DONE
    ending = judge_attempt(attempt, plan, status, reports, code, was_cancelled=run.cancelled.exists(), lost=lost)
    for line in differing(reports):
        print(f"warning: {line}", file=sys.stderr)
    if ending.failure:
        write_json(attempt.failure, ending.failure.as_dict())
        print(render_failure(ending.failure, _log(attempt, ending.failure), ending.num_others), file=sys.stderr)
    again = may_start_again(ending.state, ending.cause, *read_attempts(run))
    links = later_links(run, _job_id())
    requeues = again.is_allowed and bool(status.get("requeues"))
    comes_back = requeues or (again.is_allowed and bool(links))
    state = "requeued" if comes_back else ending.state
    update_status(run, state=state, cause=ending.cause, message=ending.message, ended=time.time())
    print(_sentence(ending, comes_back, run), file=sys.stderr)
    if ending.state == "stopped" and not again.is_allowed:
        print(f"not started again: {again.reason}", file=sys.stderr)
    if requeues:
        print("requeue")
    elif links and not comes_back:
        print("cancel", *links)
    if ending.state != "failed":
        return EXIT_DONE
    return EXIT_CONFIG if ending.failure and ending.failure.kind == "configuration" else EXIT_FAILED


def later_links(run: RunDir, job_id: str | None) -> list[str]:
    """Returns the jobs of a chain that wait behind this one."""
    ids = job_ids(run, {})
    return ids[ids.index(job_id) + 1 :] if job_id in ids else []


def _sentence(ending: Ending, comes_back: bool, run: RunDir) -> str:
    cause = f" ({ending.cause})" if ending.cause else ""
    why = f": {ending.message}" if ending.message and ending.failure is None else ""
    after = "; it goes back into the queue" if comes_back else f"; go on with: fullrank resume {run.path}" if ending.state == "stopped" else ""
    return f"{ending.state}{cause}{why}{after}"


def _log(attempt: Attempt, failure: Failure) -> Path | None:
    return attempt.rank_log(failure.rank) if failure.rank is not None else None


def _job_id() -> str | None:
    """Returns this job's id as squeue lists it, 12_3 for a task of an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
