"""Asks this machine what `fullrank check` judges; imports no training library, and changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launch.config.hub import hub_endpoint, hub_home, is_hub_offline, is_reachable
from launch.config.sources import cache_root
from launch.probe import DRIVER_GPUS, Machine, is_wandb_logged_in, probe_machine, probe_place

TOOLS = ("git", "g++", "ninja", "nvidia-smi", "sinfo", "sbatch")

_GPU_QUERY = ("name", "memory.total", "compute_cap", "driver_version")
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi shows it; capability 8.0 is an A100."""

    name: str
    memory_gib: float
    capability: float | None
    driver: str


@dataclass(frozen=True)
class Folder:
    """A folder that is or will be written to; the numbers are those of its file system, None if it cannot be asked."""

    path: Path
    is_writable: bool
    free_bytes: int | None
    free_inodes: int | None


@dataclass(frozen=True)
class Environment:
    """This process's variables, and what they are judged against.

    Args:
        variables: only names and values that a check is about are ever shown.
        has_gpus: whether the driver knows of any, hidden or not.
        interfaces: names of the network interfaces.
    """

    variables: Mapping[str, str]
    num_cores: int
    has_gpus: bool = False
    interfaces: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Surroundings:
    """What this machine answered.

    Args:
        extras: extra of fullrank -> distributions that it names.
        versions: distribution -> version, of those extras and of fullrank itself, that are installed.
        torch_cuda: the CUDA version that the installed torch was built for; None: for the CPU, or no torch.
        gpu_error: nvidia-smi's own words, if it is there and fails.
        tools: of TOOLS, those on the PATH (ninja also beside python).
        folders: what they are for -> the folder.
        is_hub_reachable: None if the hub is switched off.
        slurm: `slurm 22.05.8`, where its commands work; slurm_error: their own words, where they do not.
    """

    machine: Machine
    extras: Mapping[str, frozenset[str]]
    versions: Mapping[str, str]
    torch_cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    gpu_error: str | None = None
    tools: frozenset[str] = frozenset()
    folders: Mapping[str, Folder] = field(default_factory=dict)
    is_wandb_logged_in: bool = False
    hub: str = ""
    is_hub_reachable: bool | None = None
    slurm: str | None = None
    slurm_error: str | None = None
    environment: Environment = field(default_factory=lambda: Environment({}, 1))


def ask_machine(run_root: Path) -> Surroundings:
    """Returns what this machine answers; takes seconds at most, also where nothing answers."""
    extras = read_extras(importlib.metadata.requires("fullrank") or [])
    gpus, gpu_error = _gpus()
    slurm, slurm_error = _output(["sinfo", "--version"])
    return Surroundings(
        machine=probe_machine(),
        extras=extras,
        versions=_versions({"fullrank", *(name for names in extras.values() for name in names)}),
        torch_cuda=probe_torch_cuda(),
        gpus=gpus,
        gpu_error=gpu_error,
        tools=frozenset(tool for tool in TOOLS if shutil.which(tool) or (Path(sys.executable).parent / tool).is_file()),
        folders={
            "cache": _folder(cache_root()),
            "hub cache": _folder(hub_home()),
            "runs": _folder(run_root.absolute()),
            "temporary files": _folder(Path(os.environ.get("TMPDIR") or "/tmp")),
            "shared memory": _folder(Path("/dev/shm")),
        },
        is_wandb_logged_in=is_wandb_logged_in(),
        hub=hub_endpoint(),
        is_hub_reachable=None if is_hub_offline() else is_reachable(hub_endpoint()),
        slurm=slurm or None,
        slurm_error=slurm_error,
        environment=ask_environment(),
    )


def ask_environment() -> Environment:
    """Returns this process's variables, and what they are judged against."""
    return Environment(
        variables=dict(os.environ),
        num_cores=probe_machine().num_cores,
        has_gpus=DRIVER_GPUS.is_dir() and any(DRIVER_GPUS.iterdir()),
        interfaces=frozenset(name for _, name in socket.if_nameindex()),
    )


def read_extras(requirements: list[str]) -> dict[str, frozenset[str]]:
    """Returns the distributions each extra names, from a distribution's own list (`torch>=2.9; extra == 'train'`)."""
    extras: dict[str, set[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if extra and name and name[0] != "fullrank":
            extras.setdefault(extra[1], set()).add(name[0])
    return {extra: frozenset(names) for extra, names in extras.items()}


def read_gpus(text: str) -> tuple[Gpu, ...]:
    """Returns the GPUs in nvidia-smi's answer to _GPU_QUERY as csv without header and units; `[N/A]` for what a driver does not know."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return tuple(
        Gpu(name, float(memory) / 1024 if memory.replace(".", "").isdigit() else 0.0, float(cap) if re.fullmatch(r"\d+\.\d+", cap) else None, driver)
        for name, memory, cap, driver in (row for row in rows if len(row) == len(_GPU_QUERY))
    )


def _gpus() -> tuple[tuple[Gpu, ...], str | None]:
    if not shutil.which("nvidia-smi"):
        return (), None
    text, error = _output(["nvidia-smi", f"--query-gpu={','.join(_GPU_QUERY)}", "--format=csv,noheader,nounits"])
    return read_gpus(text), error


def probe_torch_cuda() -> str | None:
    """Returns the CUDA version that the installed torch was built for, read from torch/version.py as text: importing torch takes seconds."""
    try:
        path = Path(str(importlib.metadata.distribution("torch").locate_file("torch/version.py")))
        found = re.search(r"^cuda\b[^=]*=\s*['\"]([0-9.]+)['\"]", path.read_text(encoding="utf-8"), re.MULTILINE)
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    return found[1] if found else None


def _versions(names: set[str]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _folder(path: Path) -> Folder:
    place = probe_place(path)
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        inodes = os.statvfs(nearest)
    except OSError:
        return Folder(path, place.is_writable, place.free_bytes, None)
    return Folder(path, place.is_writable, place.free_bytes, inodes.f_favail if inodes.f_files else None)


def _output(argv: list[str]) -> tuple[str, str | None]:
    """Returns a command's stdout, and one line on why it failed; ("", None) if there is no such command."""
    try:
        ended = subprocess.run(argv, capture_output=True, timeout=_TIMEOUT_S, text=True, errors="replace")
    except FileNotFoundError:
        return "", None
    except (OSError, subprocess.SubprocessError) as error:
        return "", str(error).splitlines()[0]
    if ended.returncode:
        words = (ended.stderr.strip() or ended.stdout.strip() or f"exit code {ended.returncode}").splitlines()
        return "", words[0]
    return ended.stdout.strip(), None
