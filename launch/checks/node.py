"""What a compute node is seen to be in a job's first second, before torch loads."""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch.checks.machine import NEWER_DRIVER, unfit_driver
from launch.config.errors import ConfigError, PreflightError, Problem
from launch.machine import probe_torch_cuda
from launch.probe import count_gpus, probe_versions

DRIVER_VERSION = Path("/proc/driver/nvidia/version")
SLOW_LOOKUP_S = 2.0
"""A name server that does not know its own nodes costs each rank seconds at every start (torch looks its peers up)."""


@dataclass(frozen=True)
class NodeFacts:
    """One node of a job.

    Args:
        cores: those this process may use (its affinity).
        clock_offset_s: what must be added to this node's clock to read the file server's; None: it cannot be written to.
        driver: of NVIDIA's GPUs; None: there is none.
        torch_cuda: the CUDA version that torch was built for; None: for the CPU, or no torch.
    """

    host: str
    python: str
    python_version: str
    versions: dict[str, str]
    cores: tuple[int, ...]
    num_gpus: int
    clock_offset_s: float | None
    driver: str | None = None
    torch_cuda: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"cores": list(self.cores)}


def look_at_node(run: Path) -> NodeFacts:
    """Returns what this node has."""
    return NodeFacts(
        host=socket.gethostname(),
        python=sys.executable,
        python_version=sys.version.split()[0],
        versions=probe_versions(),
        cores=tuple(sorted(os.sched_getaffinity(0))),
        num_gpus=count_gpus(),
        clock_offset_s=clock_offset(run),
        driver=read_driver(),
        torch_cuda=probe_torch_cuda(),
    )


def read_driver() -> str | None:
    """Returns the version of NVIDIA's driver, as the driver itself says it; None: it is not loaded."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+[.\d]*)", DRIVER_VERSION.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def clock_offset(folder: Path) -> float | None:
    """Returns the file server's clock minus this node's, by the time a new file gets; None: the folder cannot be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
            before = time.time()
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())
            after = time.time()
            return round(os.stat(file.name).st_mtime - (before + after) / 2, 3)
    except OSError:
        return None


def look_up(name: str) -> float | None:
    """Returns the seconds that looking up a host's address takes; None: nobody knows it."""
    started = time.monotonic()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return None
    return time.monotonic() - started


def check_node(facts: NodeFacts, plan: Mapping[str, Any], first: Mapping[str, Any] | None = None) -> None:
    """Refuses a node that cannot do its part.

    Args:
        first: facts of the job's first node; None: nobody looked at it.

    Raises:
        PreflightError, ConfigError: with every problem at once.
    """
    if not plan:
        what = "the run directory is not visible here, or has no plan.json"
        raise ConfigError(Problem(what, where=facts.host, fix="run_root in the cluster file on a file system that every node mounts"))
    problems = []
    processes = int(plan["processes_per_node"])
    if facts.clock_offset_s is None:
        problems.append(Problem("the run directory cannot be written", facts.host, fix="a run_root that every node may write to"))
    if plan["device"] == "cuda" and facts.num_gpus < processes:
        what = f"{processes} GPUs are needed on each node and {facts.num_gpus} are visible"
        problems.append(Problem(what, facts.host, fix="gpus_per_node in the cluster file; nvidia-smi on the node shows whether its driver is loaded"))
    if plan["device"] == "cuda" and (unfit := unfit_driver(facts.driver, facts.torch_cuda)):
        problems.append(
            Problem(unfit, facts.host, fix=f"{NEWER_DRIVER}; or keep off the node: sbatch: {{exclude: {facts.host}}} in the cluster file")
        )
    if len(facts.cores) < processes:
        what = f"{processes} processes share {len(facts.cores)} core{'s' if len(facts.cores) > 1 else ''} (affinity {list(facts.cores)})"
        problems.append(Problem(what, facts.host, fix="cpus_per_node in the cluster file"))
    different = differing([first, facts.as_dict()]) if first else []
    if different:
        fix = "one environment that every node sees, as python in the cluster file"
        problems.append(Problem(f"not what the job's first node has: {'; '.join(different)}", facts.host, fix=fix))
    if problems:
        raise PreflightError(*problems)


def check_lookup(host: str, name: str, seconds: float | None) -> str | None:
    """Returns a warning about a name that takes long to look up.

    Args:
        host: where it was looked up.
        seconds: what `look_up` returned.

    Raises:
        PreflightError: nobody knows it, so that no rank here could meet the others.
    """
    if seconds is None:
        what = f"the address of {name}, the job's first node, cannot be looked up"
        raise PreflightError(Problem(what, host, fix=f"getent hosts {name} on the node shows what it knows; the site has to mend its names"))
    if seconds < SLOW_LOOKUP_S:
        return None
    return (
        f"looking up {name} took {seconds:.0f} s on {host}, and every rank does so; RES_OPTIONS='timeout:1 attempts:1' under environment shortens it"
    )


def differing(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one line for each version that is not the same on every node."""
    lines = []
    names = sorted({name for report in reports for name in report.get("versions", {})})
    rows = {"python": [str(report.get("python_version")) for report in reports]} | {
        name: [str(report.get("versions", {}).get(name, "none")) for report in reports] for name in names
    }
    for name, values in rows.items():
        if len(set(values)) > 1:
            lines.append(f"{name} differs: " + ", ".join(f"{report['host']} {value}" for report, value in zip(reports, values, strict=True)))
    return lines
