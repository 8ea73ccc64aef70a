"""Which nodes a job has lost: asked of everyone who may still know when the training goes on, or ends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from launch.config.errors import FullrankError
from launch.config.run_dir import RunDir
from launch.scheduler.commands import ask
from launch.scheduler.printed import expand_hosts

_LOST_STATES = "down,fail,no_respond"
_SRUN_SAYS = re.compile(r"Node failure on (\S+)")
"""srun's words in the job's log when the controller gives a node of its step up."""


def find_lost_nodes(run: RunDir, job: Mapping[str, Any]) -> list[str]:
    """Returns the nodes of an attempt that Slurm has given up, in the job's order; none where nobody knows.

    Either source may fail: a node that has come back is not down any more, and srun, where it was lost with the first node, has not said anything.

    Args:
        job: what the attempt wrote down when it began (Attempt.job).
    """
    hosts = expand_hosts(str(job.get("slurm_job_nodelist") or ""))
    lost = {*_said_by_srun(run, job), *_not_responding(hosts)}
    return [host for host in hosts if host in lost]


def log_size(run: RunDir, job_id: str | None) -> int:
    """Returns the bytes in a job's log: what a later attempt of the job appends begins there."""
    path = run.job_logs / f"{job_id}.log"
    return path.stat().st_size if path.is_file() else 0


def _said_by_srun(run: RunDir, job: Mapping[str, Any]) -> list[str]:
    path = run.job_logs / f"{job.get('log_name')}.log"
    try:
        with path.open("rb") as file:
            file.seek(int(job.get("log_begins") or 0))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [host for words in _SRUN_SAYS.findall(text) for host in expand_hosts(words)]


def _not_responding(hosts: list[str]) -> list[str]:
    if not hosts:
        return []
    try:
        return ask("sinfo", "-h", "-N", "-n", ",".join(hosts), "-t", _LOST_STATES, "-o", "%N").split()
    except FullrankError:
        return []
