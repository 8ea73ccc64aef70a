"""What became of the jobs behind runs: status files corrected by squeue and sacct, one query of each however many runs there are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from launch.config.errors import FullrankError
from launch.config.run_dir import Cause, RunDir, State, read_json
from launch.scheduler.commands import ask_accounting, ask_queue
from launch.scheduler.printed import JOB_STATES, REASONS, Accounted, Queued, expand_hosts

IN_QUEUE: tuple[State, ...] = ("pending", "running", "stopping", "requeued")
"""States in which a run of Slurm's has a job, or should have."""

_LONGEST_S = 90 * 86400


@dataclass(frozen=True)
class Standing:
    """How a run is, after asking Slurm.

    Args:
        note: why and when, in a person's words.
    """

    state: State
    cause: Cause | None = None
    note: str | None = None


class Jobs:
    """Answers of Slurm for one command of fullrank: each question is asked at most once, and only if a run needs it."""

    def __init__(self, since: float | None = None) -> None:
        self._since = since or time.time() - _LONGEST_S

    @cached_property
    def queue(self) -> dict[str, Queued] | str:
        """This person's jobs, or the words of a cluster that does not answer."""
        try:
            return ask_queue()
        except FullrankError as error:
            return str(error.problems[0].what)

    @cached_property
    def accounting(self) -> dict[str, Accounted] | None:
        return ask_accounting(self._since)

    def standing(self, run: RunDir, status: Mapping[str, Any]) -> Standing:
        """Returns how a run of Slurm's is now."""
        state: State = status["state"]
        is_over, ids = state not in IN_QUEUE, job_ids(run, status) if state in (*IN_QUEUE, "stopped") else []
        if is_over and not (state == "stopped" and (status.get("requeues") or len(ids) > 1)):
            return Standing(state, status.get("cause"))
        queue = self.queue
        if isinstance(queue, str):
            return Standing(state, status.get("cause"), None if is_over else f"as it said last: {queue}")
        queued = [queue[job] for job in ids if job in queue]
        for job in queued:
            if job.state not in JOB_STATES:
                return judge_queued(status, job)
        if is_over:
            return Standing(state, status.get("cause"))
        if run.cancelled.exists():
            return Standing("cancelled", "cancelled")
        if reason := waits_in_vain(status, self):
            return Standing("cancelled", "cancelled", reason)
        if queued:
            return judge_gone(status, Accounted(queued[-1].job_id, queued[-1].state, "", "", queued[-1].node_list), job_words(run, ids))
        accounting = self.accounting
        known = next((accounting[job] for job in reversed(ids) if job in accounting), None) if accounting else None
        return judge_gone(status, known, job_words(run, ids), is_accounting_silent=accounting is None)


def job_ids(run: RunDir, status: Mapping[str, Any]) -> list[str]:
    """Returns the jobs that were submitted for a run, the newest last."""
    try:
        submitted = run.job_ids.read_text(encoding="utf-8").split()
    except OSError:
        submitted = []
    return list(dict.fromkeys([*submitted, *([status["job_id"]] if status.get("job_id") else [])]))


def waits_in_vain(status: Mapping[str, Any], jobs: Jobs) -> str | None:
    """Returns why a stage of a pipeline cannot begin: the one before it is not completed; None: it can."""
    if not status.get("begins_after"):
        return None
    before = RunDir(Path(status["begins_after"]))
    found = read_json(before.status)
    state = jobs.standing(before, found).state if found else "gone"
    return None if state == "completed" else f"the stage before it is {state}: {before.path}"


def judge_queued(status: Mapping[str, Any], job: Queued) -> Standing:
    """Returns the state of a run whose job is in the queue; pure."""
    state, cause = status["state"], status.get("cause")
    if job.state == "PENDING":
        why = REASONS.get(job.reason, job.reason)
        when = f"; expected to start {job.start.replace('T', ' ')}" if job.start else ""
        return Standing("pending" if state == "pending" else "requeued", cause, f"{why}{when}")
    if job.state == "SUSPENDED":
        return Standing(state, cause, "suspended by Slurm")
    if state in ("pending", "requeued", "stopped"):
        return Standing("running", None, f"starting on {job.node_list}")
    return Standing(state, cause, f"on {job.node_list}")


def judge_gone(status: Mapping[str, Any], job: Accounted | None, words: str | None, is_accounting_silent: bool = False) -> Standing:
    """Returns the state of a run whose job is in the queue no more, although the run did not say how it ended; pure.

    Args:
        job: what accounting knows of it; None: nothing.
        words: the last ones of the job's log.
        is_accounting_silent: it is off, or does not answer.
    """
    said = f"; its log ends: {words}" if words else ""
    if job is None or job.ended is None:
        since = f", seen last at step {status['step']}" if status.get("step") is not None else ""
        unknown = "accounting is off or does not answer" if is_accounting_silent else "accounting does not know it"
        why = unknown if job is None else f"accounting says {job.state}"
        return Standing("lost", None, f"its job {status.get('job_id')} is no longer in the queue, and {why}{since}{said}")
    if job.ended == "cancelled":
        return Standing("cancelled", "cancelled", f"Slurm: {job.state}")
    if job.ended == "node_failed":
        return Standing("stopped", "node_failed", f"a node was lost: {job.node_list}")
    if job.ended == "time_limit":
        return Standing("stopped", "time_limit", "the time limit came before it had stopped: training goes on from the last checkpoint")
    if job.ended == "preempted":
        return Standing("stopped", "preempted", "it was preempted and not put back into the queue")
    if job.ended == "out_of_memory":
        return Standing("failed", None, f"killed for memory on {job.node_list}: a larger memory_gib_per_node, or fewer data.num_workers{said}")
    code = f" (exit code {job.exit_code})" if job.exit_code else ""
    if status.get("tells_its_end") is False:  # a script under the stock form: nobody but Slurm knows
        return Standing("completed") if job.ended == "completed" else Standing("failed", None, f"the job ended{code}{said}")
    if status["state"] == "pending" and job.ended != "completed":
        where = next(iter(expand_hosts(job.node_list)), "its first node")
        no_log = f"; it wrote no log: {where} does not see the run directory, it seems (run_root in the cluster file)"
        return Standing("failed", None, f"the job ended{code} before training began{said or no_log}")
    ended = "ended" if job.ended == "completed" else f"failed{code}"
    return Standing("lost", None, f"its job {ended} without a word of the training{said}")


def job_words(run: RunDir, ids: list[str]) -> str | None:
    """Returns the last lines of the newest log of these jobs; None: there is none."""
    logs = [path for job in ids for folder in (run.job_logs,) if (path := folder / f"{job}.log").is_file()]
    if not logs:
        return None
    lines = [line.strip() for line in _tail(logs[-1]) if line.strip()]
    return " | ".join(lines[-3:]) or None


def _tail(path: Path, num_bytes: int = 4096) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - num_bytes))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
