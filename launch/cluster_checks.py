"""What can be known to go wrong with a job before it is queued: a table of small checks, each with its way out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launch.config.cluster import LoadedCluster, parse_time_limit
from launch.config.errors import ConfigError, PreflightError, Problem, suggest
from launch.config.sources import HubName
from launch.plan_experiment import ExperimentPlan
from launch.plan_slurm import SlurmJob
from launch.preflight import Result, run_checks
from launch.probe import ExperimentProbe, Probe
from launch.slurm import Site
from launch.slurm_text import Partition

LOCAL_ONLY = ("nodes", "devices", "hub", "hub_cache")
"""Checks of a plan that are about this machine, which does not train."""

HURTFUL = {
    "CUDA_VISIBLE_DEVICES": "would hide GPUs of the nodes, too",
    "CUDA_LAUNCH_BLOCKING": "makes every kernel wait: for debugging, several times slower",
    "NCCL_P2P_DISABLE": "sends what GPUs of one node say to one another through the host",
    "NCCL_IB_DISABLE": "keeps NCCL off InfiniBand",
    "TORCH_DISTRIBUTED_DEBUG": "DETAIL checks every collective: slower",
    "PYTHONDONTWRITEBYTECODE": "makes every rank compile every module again",
}
"""Variables of this shell that sbatch would carry into the job."""

_NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/scratch/local")
_FEWEST_INODES = 10_000


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
    return own + [Result(name, tuple(check(submission)), is_input=False) for name, check in CHECKS.items()]


def cluster_warnings(job: SlurmJob, site: Site | None) -> list[str]:
    """Returns what may hurt and does not keep the job from starting."""
    plan, partition, warnings = job.plan, job.cluster.partition, []
    if plan.nodes > 1 and str(plan.run.path).startswith(_NODE_LOCAL):
        warnings.append(f"{plan.run.path} is often a disk of each node's own, and {plan.nodes} nodes must see the same run directory")
    warnings += [f"{name} is set in this shell and goes into the job: it {what}" for name, what in HURTFUL.items() if os.environ.get(name)]
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


def check_partition(asked: Submission) -> list[Problem]:
    if asked.site is None:
        return []
    name, names = asked.job.cluster.partition, [one.name for one in asked.site.partitions]
    if asked.partition is None:
        near = suggest(name or "", names)
        what = f"there is no partition {name!r}" if name else "the cluster has no default partition"
        return [asked.problem("partition", what + (f"; did you mean {near!r}?" if near else ""), ", ".join(names), "--partition NAME")]
    if not asked.partition.is_up:
        return [asked.problem("partition", f"the partition {asked.partition.name} is down", ", ".join(names), "--partition NAME")]
    return []


def check_time(asked: Submission) -> list[Problem]:
    limit = asked.job.cluster.time_limit
    if limit is None:
        return []
    problems, minutes = [], parse_time_limit(limit)
    longest = asked.partition.time_limit if asked.partition else None
    if longest and asked.partition and minutes > parse_time_limit(longest):
        what = f"{limit} is longer than the partition {asked.partition.name} allows"
        fix = f"--time {longest}; a longer training goes on by itself after the limit (when_stopped: requeue), or with --chain N"
        problems.append(asked.problem("time_limit", what, f"at most {longest}", fix))
    if minutes * 60 < asked.job.warning_s + 60:
        what = f"{limit} leaves no time to train before the warning that comes {asked.job.warning_s} s before its end"
        problems.append(asked.problem("time_limit", what, fix="a longer --time, or a smaller warning_s"))
    return problems


def check_node_count(asked: Submission) -> list[Problem]:
    nodes = asked.job.plan.nodes
    if asked.partition is None:
        return []
    most, by = asked.partition.num_nodes, "has"
    if (told := asked.limits.get("MaxNodes", "")).isdigit() and int(told) < most:
        most, by = int(told), "gives one job"
    if nodes <= most:
        return []
    return [
        Problem(
            f"{nodes} nodes, and the partition {asked.partition.name} {by} {most}", key="--nodes", allowed=f"at most {most}", fix=f"--nodes {most}"
        )
    ]


def check_account(asked: Submission) -> list[Problem]:
    account = asked.job.cluster.account
    if asked.site is None or account is None:
        return []
    problems = []
    known = asked.site.accounts
    if known is not None and account not in known:
        near = suggest(account, known)
        what = f"you have no account {account!r}" + (f"; did you mean {near!r}?" if near else "")
        problems.append(asked.problem("account", what, ", ".join(sorted(known)), "sacctmgr show assoc user=$USER"))
    allowed = asked.limits.get("AllowAccounts", "ALL")
    if allowed != "ALL" and account not in allowed.split(","):
        problems.append(asked.problem("account", f"the partition does not take jobs of {account!r}", allowed))
    return problems


def check_qos(asked: Submission) -> list[Problem]:
    cluster, site = asked.job.cluster, asked.site
    if site is None or cluster.qos is None or site.accounts is None:
        return []
    known = site.accounts.get(cluster.account) if cluster.account else frozenset().union(*site.accounts.values())
    if known is None or cluster.qos in known:
        return []
    return [
        asked.problem(
            "qos", f"you have no qos {cluster.qos!r}", ", ".join(sorted(known)) or None, "sacctmgr show assoc user=$USER format=account,qos"
        )
    ]


def check_constraint(asked: Submission) -> list[Problem]:
    constraint = asked.job.cluster.constraint
    if asked.partition is None or constraint is None:
        return []
    words = "".join(character if character.isalnum() or character in "_-.:" else " " for character in constraint).split()
    unknown = [word for word in words if not word.isdigit() and word not in asked.partition.features]
    features = ", ".join(sorted(asked.partition.features)) or "none"
    return [
        asked.problem("constraint", f"no node of {asked.partition.name} has the feature {word!r}", features, "sinfo -o '%P %f'") for word in unknown
    ]


def check_gpus(asked: Submission) -> list[Problem]:
    cluster, plan, problems = asked.job.cluster, asked.job.plan, []
    if plan.device == "cuda" and plan.processes_per_node > cluster.gpus_per_node:
        what = f"{plan.processes_per_node} processes a node for {cluster.gpus_per_node} GPUs"
        fix = (
            f"--gpus-per-node {plan.processes_per_node}, or --processes-per-node {cluster.gpus_per_node}"
            if cluster.gpus_per_node
            else "--strategy cpu"
        )
        problems.append(asked.problem("gpus_per_node", what, fix=fix))
    if plan.device == "cpu" and cluster.gpus_per_node and plan.strategy.use_cpu:
        what = f"{cluster.gpus_per_node} GPUs a node are asked for, and the strategy {plan.strategy.name} trains on the CPU"
        problems.append(asked.problem("gpus_per_node", what, fix="--gpus-per-node 0, or another --strategy"))
    if asked.partition is None or not cluster.gpus_per_node:
        return problems
    have = asked.partition.gpus
    if not have:
        problems.append(
            asked.problem("gpus_per_node", f"the partition {asked.partition.name} has no GPUs", "0", "--gpus-per-node 0, or another --partition")
        )
    elif cluster.gpu_type and cluster.gpu_type not in have:
        types = ", ".join(kind for kind in have if kind) or "null: the site names no types"
        problems.append(asked.problem("gpu_type", f"{asked.partition.name} has no GPUs of the type {cluster.gpu_type!r}", types))
    elif cluster.gpus_per_node > (most := have[cluster.gpu_type] if cluster.gpu_type else sum(have.values())):
        what = f"{cluster.gpus_per_node} GPUs a node, and nodes of {asked.partition.name} have {most}"
        problems.append(asked.problem("gpus_per_node", what, f"at most {most}", f"--gpus-per-node {most}"))
    return problems


def check_cpus(asked: Submission) -> list[Problem]:
    cluster, plan, problems = asked.job.cluster, asked.job.plan, []
    if plan.processes_per_node > cluster.cpus_per_node:
        what = f"{plan.processes_per_node} processes a node would share {cluster.cpus_per_node} core{'s' if cluster.cpus_per_node > 1 else ''}"
        problems.append(asked.problem("cpus_per_node", what, fix="a larger cpus_per_node, or a smaller --processes-per-node"))
    if asked.partition and cluster.cpus_per_node > asked.partition.cpus:
        what = f"{cluster.cpus_per_node} cores a node, and nodes of {asked.partition.name} have {asked.partition.cpus}"
        problems.append(asked.problem("cpus_per_node", what, f"at most {asked.partition.cpus}"))
    return problems


def check_memory(asked: Submission) -> list[Problem]:
    memory = asked.job.cluster.memory_gib_per_node
    if asked.partition is None or not memory or memory * 1024 <= asked.partition.memory_mib:
        return []
    most = asked.partition.memory_mib // 1024
    what = f"{memory} GiB a node, and nodes of {asked.partition.name} have {most}"
    return [asked.problem("memory_gib_per_node", what, f"at most {most}, or 0 for all of it")]


def check_array(asked: Submission) -> list[Problem]:
    tasks = len(asked.job.runs)
    told = asked.site.settings.get("MaxArraySize", "") if asked.site else ""
    if not told.isdigit() or tasks < int(told):  # the largest index is one less
        return []
    return [Problem(f"an array of {tasks} tasks, and this cluster takes {int(told) - 1}", key="--grid", fix="fewer values, or several submits")]


def check_names(asked: Submission) -> list[Problem]:
    """What would begin a line of its own in the script, or mean something to sbatch's file names."""
    odd = [str(path) for path in (asked.job.home, *asked.job.runs) if not str(path).isprintable()]
    return [Problem(f"{path!r} holds a line end or a control character", key="--run-root", fix="a path without them") for path in odd[:1]]


def check_python(asked: Submission) -> list[Problem]:
    python = asked.job.cluster.python
    if python is None or asked.job.cluster.container is not None:
        return []
    path = Path(python).expanduser()
    if not path.is_absolute():
        return [asked.problem("python", f"{python!r} is no absolute path, so that PATH on the node would decide", fix="its whole path: which python")]
    if path.exists() and not (path.is_file() and os.access(path, os.X_OK)):
        return [asked.problem("python", f"{python} is no program", fix="the path of a python, .../bin/python")]
    if not path.exists() and path.parent.parent.exists():
        return [asked.problem("python", f"there is no {python}", fix="make the environment first, or name another python")]
    return []


def check_container(asked: Submission) -> list[Problem]:
    container = asked.job.cluster.container
    if container is None:
        return []
    problems = []
    if container.image.startswith(("/", "./", "~")) and not Path(container.image).expanduser().exists():
        problems.append(asked.problem("container.image", f"there is no {container.image}", fix="check the path"))
    if asked.job.cluster.python is None:
        problems.append(asked.problem("python", "with a container the python inside it must be named", fix="python: /usr/bin/python3"))
    for mount in container.mounts:
        source = mount.split(":")[0]
        if not Path(source).exists():
            problems.append(asked.problem("container.mounts", f"there is no {source} to mount", fix="check the path"))
    home = str(asked.job.home)
    if container.mounts and not any(home.startswith(mount.split(":")[0]) for mount in container.mounts):
        problems.append(asked.problem("container.mounts", f"the run directory {home} is not among the mounts", fix=f"{asked.job.home.parent}:..."))
    return problems


def check_inodes(asked: Submission) -> list[Problem]:
    place = next(folder for folder in (asked.job.plan.run.path, *asked.job.plan.run.path.parents) if folder.exists())
    try:
        found = os.statvfs(place)
    except OSError:
        return []
    if not found.f_files or found.f_favail >= _FEWEST_INODES:
        return []
    return [
        Problem(
            f"room for {found.f_favail} more files only",
            where=str(place),
            allowed=f"at least {_FEWEST_INODES}",
            fix="delete old runs, or another --run-root",
        )
    ]


def check_hub(asked: Submission) -> list[Problem]:
    """Compute nodes without the internet find only what is in the cache that they see."""
    plan, probe, cluster = asked.job.plan, asked.probe, asked.job.cluster
    if not (isinstance(plan, ExperimentPlan) and isinstance(probe, ExperimentProbe)) or cluster.has_internet:
        return []
    named = {key: source.name for key, source in (("model.source", probe.model), ("data.source", probe.data)) if isinstance(source, HubName)}
    where = f"HF_HOME={cluster.cache}/huggingface FULLRANK_CACHE={cluster.cache}/fullrank " if cluster.cache else ""
    elsewhere = bool(cluster.cache) and os.environ.get("HF_HOME") != f"{cluster.cache}/huggingface"
    return [
        plan.loaded.problem(
            key,
            f"{name} is not in the hub cache that compute nodes use, and they do not reach the internet",
            fix=f"here, where there is a network: {where}fullrank fetch {plan.loaded.path}",
        )
        for key, name in named.items()
        if key not in probe.hub_cached or (elsewhere and not _is_cached_in(Path(str(cluster.cache)), name))
    ]


def _is_cached_in(cache: Path, name: str) -> bool:
    folders = (cache / "huggingface" / "hub" / f"{kind}--{name.replace('/', '--')}" for kind in ("models", "datasets"))
    return any(folder.is_dir() for folder in folders)


def check_wandb(asked: Submission) -> list[Problem]:
    plan, cluster = asked.job.plan, asked.job.cluster
    if cluster.has_internet or not isinstance(plan, ExperimentPlan) or plan.experiment.tracking.wandb.mode != "online":
        return []
    what = "W&B is to be online, and compute nodes do not reach the internet"
    return [plan.loaded.problem("tracking.wandb.mode", what, fix="tracking.wandb.mode=offline; fullrank sync --watch uploads from here")]


def check_port(asked: Submission) -> list[Problem]:
    strategy = asked.job.plan.strategy
    port = strategy.main_process_port
    if port is None or 1024 <= port < 32768:
        return []
    what = f"{port} is a port of the system" if port < 1024 else f"{port} is a port that Linux hands out to any program"
    return [Problem(what, strategy.where, "main_process_port", "1024 to 32767", "leave it out: one is derived from the run id")]


def check_stopping(asked: Submission) -> list[Problem]:
    if asked.job.cluster.when_stopped != "chain" or asked.job.restart.links > 1 or asked.job.is_array:
        return []
    return [asked.problem("when_stopped", "chain, but the job is to be a single one", fix="--chain N, for N jobs one after another")]


def check_cache(asked: Submission) -> list[Problem]:
    cache = asked.job.cluster.cache
    path = Path(cache).expanduser() if cache else None
    if path is None or not path.exists():
        return []
    if not stat.S_ISDIR(path.stat().st_mode) or not os.access(path, os.W_OK | os.X_OK):
        return [asked.problem("cache", f"{path} is no folder that can be written", fix="another folder, visible on every node")]
    return []


CHECKS: dict[str, Check] = {
    "partition": check_partition,
    "time": check_time,
    "node count": check_node_count,
    "account": check_account,
    "qos": check_qos,
    "constraint": check_constraint,
    "gpus": check_gpus,
    "cpus": check_cpus,
    "memory": check_memory,
    "array": check_array,
    "names": check_names,
    "python": check_python,
    "container": check_container,
    "inodes": check_inodes,
    "cache": check_cache,
    "hub on nodes": check_hub,
    "wandb on nodes": check_wandb,
    "port": check_port,
    "stopping": check_stopping,
}
