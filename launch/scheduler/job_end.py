"""How an attempt on several nodes ended: from what its ranks, its agents and srun left behind; reads failure reports, decides nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from launch.config.run_dir import Attempt, Cause, State, read_json
from launch.failures import Failure, parse_failure, read_failures
from launch.scheduler.printed import expand_hosts


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    Args:
        failure: the first one by a common clock.
        num_others: failures that followed it, most of them only because of it.
    """

    state: State
    cause: Cause | None = None
    message: str | None = None
    failure: Failure | None = None
    num_others: int = 0


def judge_attempt(
    attempt: Attempt,
    plan: Mapping[str, Any],
    status: Mapping[str, Any],
    reports: Sequence[Mapping[str, Any]],
    code: int,
    was_cancelled: bool,
    lost: Sequence[str] = (),
) -> Ending:
    """Returns how it ended.

    Args:
        reports: what the agent of each node wrote; a node that was lost has none.
        code: what srun ended with.
        lost: nodes that Slurm has given up.
    """
    failures = all_failures(attempt, reports)
    silent = sorted(set(range(int(plan.get("nodes", 1)))) - {int(report["node"]) for report in reports})
    own = [failure for failure in failures if not _is_cascade(failure)]
    asked = _asked(attempt)
    if status.get("state") == "completed" and not own:
        return Ending("completed")
    if own:
        return Ending("failed", None, _headline(own[0]), own[0], len(failures) - 1)
    if was_cancelled or asked == "cancelled" or status.get("cause") == "cancelled":
        return Ending("cancelled", "cancelled")
    if status.get("state") == "stopped":
        return Ending("stopped", status.get("cause") or asked or "preempted")
    if "script" in plan and not silent and not failures:
        stopped = attempt.agreed_stop.exists() or (asked and any(any(report["codes"]) for report in reports))
        return Ending("stopped", asked or "preempted") if stopped else Ending("completed")
    if lost:  # whatever was asked for: Slurm ends the rest of a job that has lost a node as it does at a preemption
        return Ending("stopped", "node_failed", f"{', '.join(lost)} was lost: training goes on from the last checkpoint")
    if asked and (failures or silent):
        return Ending("stopped", asked, "it was ended before it had saved: training goes on from the last checkpoint")
    if silent and reports:
        return Ending("stopped", "node_failed", f"{_named(attempt, silent)} was lost, or killed there: nothing was heard of its end")
    if failures:
        return Ending("failed", None, _headline(failures[0]), failures[0], len(failures) - 1)
    return Ending("failed", None, f"srun ended with exit code {code} and no agent has reported: {_last_words(attempt)}")


def _last_words(attempt: Attempt) -> str:
    """Returns what stood in the agent's place: a container or a python that does not start says so where the agent would have."""
    for path in sorted(attempt.path.glob("node_*.log")):
        lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        if lines:
            return f"{path.name} ends: {lines[-1]}"
    return "srun's words are in the job's log"


def _named(attempt: Attempt, nodes: Sequence[int]) -> str:
    """Returns the names of a job's nodes by their numbers, or the numbers where nobody wrote the names down."""
    hosts = expand_hosts(str((read_json(attempt.job) or {}).get("slurm_job_nodelist") or ""))
    return ", ".join(hosts[node] if node < len(hosts) else f"node {node} of the job" for node in nodes)


def all_failures(attempt: Attempt, reports: Sequence[Mapping[str, Any]]) -> list[Failure]:
    """Returns every failure of every node, the earliest first by the file server's clock; what only lost contact comes last."""
    offsets = {str(report["host"]): float(report.get("clock_offset_s") or 0) for report in reports}
    lines = {failure.get("rank"): tuple(failure.get("last_lines", ())) for report in reports if (failure := report.get("failure"))}
    failures = read_failures(attempt, {rank: last for rank, last in lines.items() if rank is not None})
    told = {failure.rank for failure in failures}
    failures += [parse_failure(report["failure"]) for report in reports if report.get("failure") and report["failure"].get("rank") not in told]
    timed = [replace(failure, time=failure.time + offsets.get(failure.host, 0.0)) for failure in failures]
    return sorted(timed, key=lambda failure: (_is_cascade(failure), failure.time))


def _is_cascade(failure: Failure) -> bool:
    """Returns whether it followed from something else: contact lost, or ended by srun because another node had failed."""
    return failure.kind == "lost_contact" or (failure.kind == "killed" and failure.exit_code in (-15, -9) and "SIGTERM" in failure.message)


def _asked(attempt: Attempt) -> Cause | None:
    try:
        said = attempt.stop_file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return said if said in get_args(Cause) else "user"  # type: ignore[return-value]


def _headline(failure: Failure) -> str:
    who = f"rank {failure.rank} on {failure.host}: " if failure.rank is not None else f"{failure.host}: "
    return who + (f"{failure.exception}: {failure.message}" if failure.exception else failure.message)
