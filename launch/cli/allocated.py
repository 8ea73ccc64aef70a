"""What `fullrank run` does inside an allocation of several nodes: it trains on all of them."""

from __future__ import annotations

import sys
from pathlib import Path

from launch.backends import slurm as backend
from launch.checks.cluster import cluster_preflight
from launch.cli.planning import Target, plan_target
from launch.cli.show import plan_headline
from launch.config.cluster import Cluster, LoadedCluster
from launch.config.errors import ConfigError, Problem
from launch.config.yaml_files import Document
from launch.probe import Probe, probe_machine
from launch.scheduler.allocation import Allocation
from launch.scheduler.plan import JobOptions, SlurmJob, node_machine, plan_job
from launch.scheduler.render import render_sbatch
from launch.scheduler.restarts import Restart


def plan_allocated(
    target: Target,
    allocation: Allocation,
    strategy: str,
    nodes: int | None,
    processes_per_node: int | None,
    launcher: str,
    run_dir: Path | None,
    run_root: Path | None,
) -> tuple[SlurmJob, Probe]:
    """Returns the job as it would be submitted, for the nodes that are there already.

    Raises:
        ConfigError: more nodes are asked for than there are, or a launcher for one machine.
    """
    if nodes is not None and nodes > allocation.nodes:
        what = f"{nodes} nodes, and the allocation {allocation.job_id} has {allocation.nodes}"
        raise ConfigError(Problem(what, key="--nodes", allowed=f"at most {allocation.nodes}"))
    if launcher not in ("direct", "accelerate"):
        raise ConfigError(
            Problem(f"{launcher!r} is for one machine", key="--launcher", allowed="direct, accelerate", fix="--here for this node alone")
        )
    cluster = Cluster(cpus_per_node=allocation.cpus, gpus_per_node=allocation.gpus, when_stopped="nothing")
    name, here = f"allocation {allocation.job_id}", probe_machine()
    machine = node_machine(cluster, name, here)
    plan, probe = plan_target(target, strategy, nodes or allocation.nodes, processes_per_node, launcher, run_dir, run_root, machine=machine)
    job = plan_job(plan, cluster, JobOptions(), here.python, Restart(requeues=False))
    cluster_preflight(job, LoadedCluster(cluster, Document({}, Path(name))), probe, site=None)
    return job, probe


def run_allocated(job: SlurmJob, probe: Probe, dry_run: bool) -> int:
    """Runs the job's script here and returns its exit code; a dry run prints it."""
    if dry_run:
        print(render_sbatch(backend.snapshot_paths(job)), end="")
        return 0
    print(f"{plan_headline(job.plan)}, on {job.plan.nodes} nodes of the allocation\n{job.plan.run.path}", file=sys.stderr)
    print(f"  fullrank logs -f {job.plan.run.run_id}", file=sys.stderr)
    return backend.run_here(job, probe)
