"""What can be known to go wrong with a job before it is queued: a table of small checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launch.config.cluster import LoadedCluster
from launch.config.errors import ConfigError, PreflightError, Problem, suggest
from launch.plan_slurm import SlurmJob
from launch.preflight import run_checks
from launch.probe import Probe
from launch.slurm import Site

LOCAL_ONLY = ("nodes", "devices")
"""Checks of a plan that are about this machine, which does not train."""


@dataclass(frozen=True)
class Submission:
    """Everything a check may look at."""

    job: SlurmJob
    loaded: LoadedCluster
    probe: Probe
    site: Site


Check = Callable[[Submission], list[Problem]]


def cluster_preflight(job: SlurmJob, loaded: LoadedCluster, probe: Probe, site: Site | None) -> None:
    """Runs every check.

    Args:
        site: None where there is no cluster to ask (a dry run elsewhere).

    Raises:
        ConfigError, PreflightError: with every problem at once.
    """
    results = [result for result in run_checks(job.plan, probe) if result.name not in LOCAL_ONLY]
    problems = [problem for result in results for problem in result.problems]
    if site is not None:
        submission = Submission(job, loaded, probe, site)
        problems += [problem for check in CHECKS.values() for problem in check(submission)]
    if any(result.is_input and result.problems for result in results):
        raise ConfigError(*problems)
    if problems:
        raise PreflightError(*problems)


def check_partition(asked: Submission) -> list[Problem]:
    cluster, site = asked.job.cluster, asked.site
    partition = site.partition(cluster.partition)
    names = ", ".join(one.name for one in site.partitions)
    if partition is None:
        what = f"there is no partition {cluster.partition!r}" if cluster.partition else "the cluster has no default partition"
        near = suggest(cluster.partition or "", [one.name for one in site.partitions])
        return [asked.loaded.problem("partition", what + (f"; did you mean {near!r}?" if near else ""), names, "--partition NAME")]
    if not partition.is_up:
        return [asked.loaded.problem("partition", f"the partition {partition.name} is down", names, "--partition NAME")]
    return []


CHECKS: dict[str, Check] = {"partition": check_partition}
