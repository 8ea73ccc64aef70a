"""How a job's training goes on after a stop: by requeueing itself, or by the next job of a chain; pure."""

from __future__ import annotations

from dataclasses import dataclass

from launch.config.cluster import Cluster
from launch.scheduler.commands import Site

LINKS = 4
"""Jobs of a chain that nobody gave a length: each may be preempted once, or train up to its time limit."""


@dataclass(frozen=True)
class Restart:
    """What follows an agreed stop.

    Args:
        requeues: whether the job puts itself into the queue again.
        links: jobs submitted one after another; 1: no chain.
        reason: why, where the cluster decided and not a person.
    """

    requeues: bool
    links: int = 1
    reason: str | None = None


def choose_restart(cluster: Cluster, chain: int | None, site: Site | None, is_array: bool = False) -> Restart:
    """Returns what the cluster file, the command line and the cluster's own configuration make of `when_stopped`.

    `auto` is requeue, but for a partition where preemption cancels: a job that has not saved within the grace time is gone there, and only
    a job that waits behind it goes on. JobRequeue=0 does not matter: it is the default of jobs that do not say, and ours say --requeue.

    Args:
        chain: what --chain says; None: nothing.
        site: None: there is no cluster to ask.
        is_array: one array cannot wait for another task by task, so that it requeues.
    """
    if chain is not None and chain > 1:
        return Restart(False, chain)
    if cluster.when_stopped == "nothing":
        return Restart(False)
    if cluster.when_stopped == "chain":
        return Restart(False, LINKS if chain is None else chain)
    if cluster.when_stopped == "auto" and chain is None and not is_array and site and site.preempt_mode(cluster.partition) == "CANCEL":
        partition = cluster.partition or site.default_partition
        return Restart(False, LINKS, f"preemption cancels jobs in {partition}: {LINKS} jobs, each going on where the one before stopped (--chain N)")
    return Restart(True)
