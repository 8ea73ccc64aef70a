"""What a check of a job may look at, before the job is queued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launch.config.cluster import LoadedCluster
from launch.config.errors import Problem
from launch.probe import Probe
from launch.scheduler.commands import Site
from launch.scheduler.plan import SlurmJob
from launch.scheduler.printed import Partition


@dataclass(frozen=True)
class Submission:
    """Everything a check may look at; site None: there is no cluster to ask (a dry run elsewhere)."""

    job: SlurmJob
    loaded: LoadedCluster
    probe: Probe
    site: Site | None

    @property
    def partition(self) -> Partition | None:
        return self.site.partition(self.job.cluster.partition) if self.site else None

    @property
    def limits(self) -> dict[str, str]:
        """What scontrol says of the partition."""
        return self.site.limits.get(self.partition.name, {}) if self.site and self.partition else {}

    def problem(self, key: str, what: str, allowed: str | None = None, fix: str | None = None) -> Problem:
        """Returns a Problem at the place in the cluster file where `key` is set, or would be."""
        return self.loaded.problem(key, what, allowed, fix)


Check = Callable[[Submission], list[Problem]]
