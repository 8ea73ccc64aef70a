"""A Slurm site: the models behind a cluster file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from launch.config.errors import ConfigError, Problem, suggest
from launch.config.load import find_shipped, load_file, shipped_configs
from launch.config.sections import Section
from launch.config.yaml_files import Document

OWN_CLUSTERS = Path("~/.config/fullrank/clusters")
"""A person's own cluster files."""

RESERVED_OPTIONS = frozenset(
    "array job-name nodes ntasks ntasks-per-node cpus-per-task gpus-per-node gres mem time partition account qos constraint reservation output "
    "error open-mode signal requeue no-requeue dependency exclusive chdir parsable test-only wrap export".split()
)
"""sbatch options that have a key of their own, or that fullrank decides."""

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def parse_time_limit(text: str) -> int:
    """Returns a Slurm time limit in minutes, rounded up: `90` (minutes), `90:00`, `12:00:00`, `2-00:00:00`, `2-12`.

    Raises:
        ValueError: it is none of these.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time limit: write it as Slurm does, e.g. 12:00:00 or 2-00:00:00")
    days, first, second, third = (int(part) if part else None for part in match.groups())
    if days is not None:
        hours, minutes, seconds = first or 0, second or 0, third or 0
    elif third is not None:
        hours, minutes, seconds = first or 0, second or 0, third
    else:
        hours, minutes, seconds = 0, first or 0, second or 0
    return (((days or 0) * 24 + hours) * 60) + minutes + (1 if seconds else 0)


def _one_line(text: str) -> str:
    """No value may begin a line of its own in a script."""
    if any(not character.isprintable() for character in text):
        raise ValueError(f"{text!r} holds a line end or another character that cannot be printed")
    return text


def _time_limit(text: str) -> str:
    if parse_time_limit(text) < 1:
        raise ValueError(f"{text!r} is no time")
    return text


Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
TimeLimit = Annotated[str, AfterValidator(_time_limit)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
OptionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


class Container(Section):
    """The container that the training runs in."""

    kind: Literal["pyxis", "apptainer"] = Field(description="pyxis: srun --container-image (enroot); apptainer: apptainer exec.")
    image: Line = Field(description="Image: a .sqsh or .sif file, or a registry name.")
    mounts: list[Line] = Field([], description="Bind mounts, SOURCE:TARGET; the run root, the caches and the code must be among them.")


class Cluster(Section):
    """One Slurm site."""

    partition: Line | None = Field(None, description="Partition. null: the cluster's default.")
    account: Line | None = Field(None, description="Account that is charged. null: yours.")
    qos: Line | None = Field(None, description="Quality of service. null: the account's.")
    constraint: Line | None = Field(None, description="Features that the nodes must have, e.g. 'a100&ib'. null: none.")
    reservation: Line | None = Field(None, description="Reservation. null: none.")
    gpus_per_node: int = Field(0, ge=0, description="GPUs asked for on each node. 0: a training on CPUs.")
    gpu_type: Line | None = Field(None, description="Type of GPU, as the site calls it, e.g. h100. null: any.")
    gpu_option: Literal["gpus-per-node", "gres"] = Field(
        "gpus-per-node", description="sbatch option that asks for GPUs. Never gpus-per-task: it hides the GPUs of a node from one another."
    )
    cpus_per_node: int = Field(gt=0, description="CPU cores asked for on each node, for all of its processes.")
    memory_gib_per_node: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Memory asked for on each node. 0: all of it. null: the cluster's default, often little."
    )
    exclusive: bool = Field(False, description="Whether nodes are taken whole.")
    time_limit: TimeLimit | None = Field(None, description="Time limit of a job, e.g. 12:00:00 or 2-00:00:00. null: the partition's default.")
    setup: list[Line] = Field([], description="Lines of bash that make the environment, before anything else. The only text that runs as code.")
    modules: list[Line] = Field([], description="Environment modules, loaded in this order.")
    python: Line | None = Field(None, description="Python of the training on the compute nodes. null: the one that runs fullrank.")
    container: Container | None = Field(None, description="Container of the training. null: none.")
    environment: dict[Name, Line] = Field({}, description="Variables of the job, e.g. NCCL_SOCKET_IFNAME. Never a secret: they stand in the script.")
    run_root: Line | None = Field(None, description="Folder of all runs, visible on every node. null: ./runs, or FULLRANK_RUN_ROOT.")
    cache: Line | None = Field(None, description="Folder of the caches (FULLRANK_CACHE, HF_HOME), visible on every node. null: yours at home.")
    wandb_mode: Literal["online", "offline", "disabled"] | None = Field(None, description="W&B on the compute nodes. null: as the experiment says.")
    has_internet: bool = Field(True, description="Whether compute nodes reach the internet (the hub, W&B).")
    when_stopped: Literal["auto", "requeue", "chain", "nothing"] = Field(
        "auto",
        description="After a preemption or the time limit. auto: requeue, or a chain where preemption cancels jobs (--chain N: how many).",
    )
    warning_s: Annotated[int, Field(ge=60)] | None = Field(
        None, description="Seconds before the time limit at which the training is told to save. null: from the measured save time."
    )
    sbatch: dict[OptionName, Line | None] = Field({}, description="Any further options of sbatch, without dashes; null: an option without a value.")
    template: Line | None = Field(None, description="A template of your own instead of slurm/*.sbatch.j2. null: fullrank's.")


@dataclass(frozen=True)
class LoadedCluster:
    """A cluster file as loaded."""

    cluster: Cluster
    document: Document

    @property
    def name(self) -> str:
        return self.document.path.stem

    def problem(self, key: str, what: str, allowed: str | None = None, fix: str | None = None) -> Problem:
        """Returns a Problem at the place where `key` is set, or would be."""
        return Problem(what, self.document.where(tuple(key.split("."))), key, allowed, fix)


def load_cluster(name_or_path: str) -> LoadedCluster:
    """Returns the cluster of a path, of a person's own file, or of a shipped example.

    Raises:
        ConfigError: no such file, or with every problem of the file at once.
    """
    cluster, document = load_file(_find(name_or_path), Cluster)
    taken = sorted(set(cluster.sbatch) & RESERVED_OPTIONS)
    if taken:
        raise ConfigError(
            *(
                Problem(f"--{name} is decided by fullrank, or has a key of its own", document.where(("sbatch", name)), f"sbatch.{name}")
                for name in taken
            )
        )
    return LoadedCluster(cluster, document)


def cluster_names() -> list[str]:
    """Returns the names of a person's own cluster files and of the shipped ones."""
    return sorted({path.stem for folder in (OWN_CLUSTERS.expanduser(), shipped_configs() / "clusters") for path in folder.glob("*.yaml")})


def _find(name_or_path: str) -> Path:
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return find_shipped(name_or_path, "clusters")
    own = OWN_CLUSTERS.expanduser() / f"{name_or_path}.yaml"
    if own.is_file():
        return own
    if name_or_path in cluster_names():
        return find_shipped(name_or_path, "clusters")
    near = suggest(name_or_path, cluster_names())
    what = f"there is no cluster file {name_or_path!r}" + (f"; did you mean {near!r}?" if near else "")
    fix = f"fullrank cluster init {name_or_path}, on the login node"
    raise ConfigError(Problem(what, key="--cluster", allowed=", ".join(cluster_names()) or None, fix=fix))
