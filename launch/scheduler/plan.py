"""What Slurm adds to a launch: (plan, cluster, options) -> SlurmJob; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from launch.config.cluster import Cluster, parse_time_limit
from launch.config.errors import ConfigError, Problem
from launch.plan import LaunchPlan
from launch.probe import Machine
from launch.scheduler.restarts import Restart
from launch.sizes.save_time import SaveTime

DEFAULT_WARNING_S = 300
"""Before anything was measured: time for a save of a large model to a busy file system."""

SHORTEST_WARNING_S = 120
"""Slurm looks at time limits about once a minute (sbatch(1), --signal), so that a warning may come a minute late."""

_LONGEST_WARNING_S = 65535  # sbatch(1), --signal

WAIT_S = 1800
"""srun --wait: how long nodes may take to follow the first that is done; a slow node may still be saving."""


@dataclass(frozen=True)
class JobOptions:
    """What the command line of submit says; None: not said.

    Args:
        array_limit: how many tasks of an array may run at a time.
        chain: links of a chain of jobs.
    """

    gpus_per_node: int | None = None
    time_limit: str | None = None
    partition: str | None = None
    array_limit: int | None = None
    chain: int | None = None


@dataclass(frozen=True)
class Before:
    """The stage of a pipeline that a job waits for; several jobs where that is a chain."""

    run: Path
    job_ids: tuple[str, ...]

    @property
    def dependency(self) -> str:
        """What sbatch's --dependency says; of a chain only the last job counts, and that is taken from the queue where it has nothing to do."""
        return f"{'afterok' if len(self.job_ids) == 1 else 'afterany'}:{self.job_ids[-1]}"


@dataclass(frozen=True)
class SlurmJob:
    """One sbatch script.

    Args:
        cluster: with what the command line replaced.
        runs: the run directories, one an array task; a job that is no array has one.
        home: where the script, its job logs and the code lie: the run directory, or the sweep's.
        host_python: what runs beside the training on the job's first node, outside of a container.
        warning_s: seconds before the time limit at which the training is told to save.
        restart: how the training goes on after an agreed stop.
        save: how long a checkpoint takes; None: not known.
        before: the stage of a pipeline that must be completed first; None: it waits for nothing.
    """

    plan: LaunchPlan
    cluster: Cluster
    runs: tuple[Path, ...]
    home: Path
    host_python: str
    warning_s: int
    restart: Restart
    save: SaveTime | None = None
    array_limit: int | None = None
    before: Before | None = None

    @property
    def is_array(self) -> bool:
        return self.home != self.plan.run.path

    @property
    def script(self) -> Path:
        return self.home / "submit.sbatch"

    @property
    def job_logs(self) -> Path:
        return self.home / "jobs"


def with_options(cluster: Cluster, options: JobOptions) -> Cluster:
    """Returns the cluster with what the command line replaces.

    Raises:
        ConfigError: a value that a cluster file could not have either; names the option.
    """
    said = {name: value for name in _SAID_AS if (value := getattr(options, name)) is not None}
    try:
        return Cluster.model_validate(cluster.model_dump() | said)
    except ValidationError as error:
        raise ConfigError(*(Problem(one["msg"].removeprefix("Value error, "), key=_SAID_AS[str(one["loc"][0])]) for one in error.errors())) from error


_SAID_AS = {"gpus_per_node": "--gpus-per-node", "time_limit": "--time", "partition": "--partition"}
"""Key of the cluster file -> the option of the command line that replaces it."""


def node_machine(cluster: Cluster, name: str, here: Machine) -> Machine:
    """Returns a compute node as the cluster file describes it, for the plan to be made for; its packages are taken to be those of here."""
    threads = cluster.environment.get("OMP_NUM_THREADS", "")
    return replace(
        here,
        host=f"a node of {name}",
        num_cores=cluster.cpus_per_node,
        num_gpus=cluster.gpus_per_node,
        memory_bytes=cluster.memory_gib_per_node * 2**30 if cluster.memory_gib_per_node else None,
        num_threads=int(threads) if threads.isdigit() and int(threads) > 0 else None,
        python=cluster.python or here.python,
    )


def plan_job(
    plan: LaunchPlan,
    cluster: Cluster,
    options: JobOptions,
    host_python: str,
    restart: Restart,
    save: SaveTime | None = None,
    runs: tuple[Path, ...] = (),
    home: Path | None = None,
) -> SlurmJob:
    """Returns the job that starts a plan, or an array of them.

    Args:
        runs, home: of an array.
    """
    return SlurmJob(
        plan=plan,
        cluster=cluster,
        runs=runs or (plan.run.path,),
        home=home or plan.run.path,
        host_python=host_python if cluster.container else plan.python,
        warning_s=warning_time(cluster, save),
        restart=restart,
        save=save,
        array_limit=options.array_limit,
    )


def warning_time(cluster: Cluster, save: SaveTime | None) -> int:
    """Returns the seconds before the time limit at which to warn: twice the longest save, a step, and Slurm's own minute.

    Never less than the default on the word of an estimate, and never more than half of the time there is.
    """
    if cluster.warning_s is not None:
        return cluster.warning_s
    least = SHORTEST_WARNING_S if save and save.is_measured else DEFAULT_WARNING_S
    wanted = min(_LONGEST_WARNING_S, max(least, int(2 * save.seconds) + 90)) if save else DEFAULT_WARNING_S
    limit_s = parse_time_limit(cluster.time_limit) * 60 if cluster.time_limit else None
    return min(wanted, limit_s // 2) if limit_s else wanted


def directives(job: SlurmJob) -> list[tuple[str, str | None]]:
    """Returns sbatch's options, as they stand in the script."""
    cluster, plan = job.cluster, job.plan
    log = job.job_logs / ("%A_%a.log" if job.is_array else "%j.log")
    last, limit = len(job.runs) - 1, f"%{job.array_limit}" if job.array_limit else ""
    options: list[tuple[str, str | None]] = [
        ("job-name", "".join(character if character.isprintable() else "?" for character in plan.name)),
        ("nodes", str(plan.nodes)),
        ("ntasks-per-node", "1"),
        ("cpus-per-task", str(cluster.cpus_per_node)),
        *_gpus(cluster),
        *([("mem", f"{cluster.memory_gib_per_node}G" if cluster.memory_gib_per_node else "0")] if cluster.memory_gib_per_node is not None else []),
        *((name, value) for name in ("partition", "account", "qos", "constraint", "reservation") if (value := getattr(cluster, name)) is not None),
        *([("exclusive", None)] if cluster.exclusive else []),
        *([("time", cluster.time_limit)] if cluster.time_limit else []),
        *([("array", f"0-{last}{limit}")] if job.is_array else []),
        ("output", _pattern(log)),
        ("open-mode", "append"),
        ("signal", f"B:USR2@{job.warning_s}"),
        ("requeue" if job.restart.requeues else "no-requeue", None),
        *cluster.sbatch.items(),
    ]
    return options


def _gpus(cluster: Cluster) -> list[tuple[str, str | None]]:
    if not cluster.gpus_per_node:
        return []
    count = f"{cluster.gpu_type}:{cluster.gpus_per_node}" if cluster.gpu_type else str(cluster.gpus_per_node)
    return [("gres", f"gpu:{count}") if cluster.gpu_option == "gres" else ("gpus-per-node", count)]


def _pattern(path: Path) -> str:
    """sbatch reads % in a file name as its own; a folder's % is doubled."""
    return f"{str(path.parent).replace('%', '%%')}/{path.name}"
