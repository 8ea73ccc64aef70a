"""What can be known to go wrong with a job before it is queued: a table of small checks, each with its way out."""

from __future__ import annotations

import os

from launch.checks import reach
from launch.checks import site as site_gives
from launch.checks.environment import HURTS
from launch.config.cluster import LoadedCluster
from launch.config.errors import ConfigError, PreflightError
from launch.preflight import Result, run_checks
from launch.probe import Probe
from launch.scheduler.commands import Site, clean_environment
from launch.scheduler.plan import SlurmJob
from launch.scheduler.submission import Check, Submission

LOCAL_ONLY = ("nodes", "devices", "hub", "hub_cache")
"""Checks of a plan that are about this machine, which does not train."""

_NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/scratch/local")


def cluster_preflight(job: SlurmJob, loaded: LoadedCluster, probe: Probe, site: Site | None) -> None:
    """Runs every check.

    Raises:
        ConfigError, PreflightError: with every problem at once.
    """
    results = run_cluster_checks(job, loaded, probe, site)
    problems = [problem for result in results for problem in result.problems]
    if any(result.is_input and result.problems for result in results):
        raise ConfigError(*problems)
    if problems:
        raise PreflightError(*problems)


def run_cluster_checks(job: SlurmJob, loaded: LoadedCluster, probe: Probe, site: Site | None) -> list[Result]:
    """Returns what each check found: those of the plan, then those of the cluster."""
    submission = Submission(job, loaded, probe, site)
    own = [result for result in run_checks(job.plan, probe) if result.name not in LOCAL_ONLY]
    return own + [Result(name, tuple(check(submission)), is_input=False, fine=WHEN_FINE[name]) for name, check in CHECKS.items()]


def cluster_warnings(job: SlurmJob, site: Site | None) -> list[str]:
    """Returns what may hurt and does not keep the job from starting."""
    plan, partition, warnings = job.plan, job.cluster.partition, []
    if plan.nodes > 1 and str(plan.run.path).startswith(_NODE_LOCAL):
        warnings.append(f"{plan.run.path} is often a disk of each node's own, and {plan.nodes} nodes must see the same run directory")
    carried = clean_environment(os.environ)
    warnings += [
        f"{name}={carried[name]} goes from this shell into the job: {hurt.what}"
        for name, hurt in HURTS.items()
        if name in carried and hurt.is_bad(carried[name])
    ]
    if site is None:
        return warnings
    mode, grace_s = site.preempt_mode(partition), site.grace_s(partition)
    if job.restart.reason:
        warnings.append(job.restart.reason)
    if mode == "CANCEL" and job.restart.links == 1:
        after = f"one that saves within {grace_s} s puts itself back" if job.restart.requeues else "nothing starts this one again"
        warnings.append(f"preemption cancels jobs in this partition, and {after}: --chain N, or fullrank resume {plan.run.run_id}")
    if mode in ("CANCEL", "REQUEUE") and job.save and job.save.seconds > grace_s / 2:
        warnings.append(f"{job.save.origin}, and a preempted job is killed after {grace_s} s: a smaller checkpoint.every loses less")
    return warnings


CHECKS: dict[str, Check] = {
    "partition": site_gives.check_partition,
    "time": site_gives.check_time,
    "node count": site_gives.check_node_count,
    "account": site_gives.check_account,
    "qos": site_gives.check_qos,
    "constraint": site_gives.check_constraint,
    "gpus": site_gives.check_gpus,
    "cpus": site_gives.check_cpus,
    "memory of a node": site_gives.check_memory,
    "array": site_gives.check_array,
    "names": reach.check_names,
    "python": reach.check_python,
    "container": reach.check_container,
    "inodes": reach.check_inodes,
    "room for checkpoints": reach.check_checkpoint_room,
    "cache": reach.check_cache,
    "hub on nodes": reach.check_hub,
    "wandb on nodes": reach.check_wandb,
    "port": reach.check_port,
    "stopping": site_gives.check_stopping,
}

WHEN_FINE: dict[str, str] = {
    "partition": "it is there, and up",
    "time": "within the partition's limit, with time to train before the warning",
    "node count": "the partition has as many, and gives them to one job",
    "account": "yours, and the partition takes it; or none is named",
    "qos": "yours, or none is named",
    "constraint": "nodes have these features, or none is named",
    "gpus": "nodes have as many of this type, one for each process",
    "cpus": "nodes have as many, one or more for each process",
    "memory of a node": "nodes have as much",
    "array": "the cluster takes as many tasks",
    "names": "no path that sbatch would read as something else",
    "python": "a program, or inside the container",
    "container": "image and mounts are there, or there is none",
    "inodes": "room for more files",
    "room for checkpoints": "enough for those that stay, as far as the model's size is known",
    "cache": "a folder that can be written, or yours at home",
    "hub on nodes": "nodes reach the hub, or what is needed of it is in the cache",
    "wandb on nodes": "nodes reach it, or it is not online",
    "port": "below those that Linux hands out",
    "stopping": "the training goes on after a stop, or is not to",
}
"""What each check says when it finds nothing."""
