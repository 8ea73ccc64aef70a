"""Will the nodes find what a job needs: its paths, room for what it writes, python, containers, models, data, W&B, a port."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from launch.config.errors import Problem
from launch.config.sources import HubName
from launch.plan_experiment import ExperimentPlan
from launch.probe import ExperimentProbe
from launch.scheduler.submission import Submission
from launch.sizes.save_time import checkpoint_bytes

_FEWEST_INODES = 10_000
"""A checkpoint is a folder of tens of files, a run of hundreds."""


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


def check_checkpoint_room(asked: Submission) -> list[Problem]:
    """The checkpoints that stay, the best one, the one being written beside them, and the final weights; of every run of an array."""
    plan, free = asked.job.plan, asked.probe.place.free_bytes
    size = checkpoint_bytes(plan)
    if size is None or free is None or not isinstance(plan, ExperimentPlan):
        return []
    kept = plan.experiment.checkpoint.keep + plan.experiment.checkpoint.keep_best + 1
    needed = size * kept * len(asked.job.runs)
    if free >= needed:
        return []
    runs = f" of {len(asked.job.runs)} runs" if asked.job.is_array else ""
    what = f"{free / 2**30:.1f} GiB free, and the checkpoints{runs} take {needed / 2**30:.1f} ({kept} of {size / 2**30:.1f})"
    return [plan.loaded.problem("checkpoint.keep", what, fix="make room, checkpoint.keep=1, checkpoint.keep_best=false, or another --run-root")]


def check_cache(asked: Submission) -> list[Problem]:
    cache = asked.job.cluster.cache
    path = Path(cache).expanduser() if cache else None
    if path is None or not path.exists():
        return []
    if not stat.S_ISDIR(path.stat().st_mode) or not os.access(path, os.W_OK | os.X_OK):
        return [asked.problem("cache", f"{path} is no folder that can be written", fix="another folder, visible on every node")]
    return []


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
