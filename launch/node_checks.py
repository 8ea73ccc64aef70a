"""What a compute node is seen to be in a job's first second, before torch loads."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch.config.errors import ConfigError, PreflightError, Problem
from launch.probe import count_gpus, probe_versions


@dataclass(frozen=True)
class NodeFacts:
    """One node of a job.

    Args:
        cores: those this process may use (its affinity).
        clock_offset_s: what must be added to this node's clock to read the file server's; None: it cannot be written to.
    """

    host: str
    python: str
    python_version: str
    versions: dict[str, str]
    cores: tuple[int, ...]
    num_gpus: int
    clock_offset_s: float | None

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
    )


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


def check_node(facts: NodeFacts, plan: Mapping[str, Any]) -> None:
    """Refuses a node that cannot do its part.

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
    if len(facts.cores) < processes:
        what = f"{processes} processes share {len(facts.cores)} core{'s' if len(facts.cores) > 1 else ''} (affinity {list(facts.cores)})"
        problems.append(Problem(what, facts.host, fix="cpus_per_node in the cluster file"))
    if problems:
        raise PreflightError(*problems)


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
