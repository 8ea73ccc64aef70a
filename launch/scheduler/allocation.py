"""Where this shell is: inside an allocation of Slurm's, on a login node, or neither."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_TIMEOUT_S = 5
_CONFIGURATIONS = tuple(map(Path, ("/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/etc/slurm-llnl/slurm.conf")))
"""Where Slurm's programs look for the cluster they belong to."""


@dataclass(frozen=True)
class Allocation:
    """The nodes that salloc or sbatch gave this shell; counts are of each node."""

    job_id: str
    nodes: int
    cpus: int
    gpus: int


def read_allocation(environment: Mapping[str, str]) -> Allocation | None:
    """Returns the allocation around this shell; None: there is none, or this is a task that srun has started."""
    if "SLURM_JOB_ID" not in environment or ("SLURM_NODEID" in environment and environment.get("SLURM_STEP_NUM_TASKS", "1") != "1"):
        return None
    cpus, gpus = environment.get("SLURM_CPUS_ON_NODE", "1"), environment.get("SLURM_GPUS_ON_NODE", "0")
    return Allocation(
        job_id=environment["SLURM_JOB_ID"],
        nodes=int(environment.get("SLURM_JOB_NUM_NODES") or 1),
        cpus=int(cpus) if cpus.isdigit() else 1,
        gpus=int(gpus) if gpus.isdigit() else 0,
    )


def is_login_node(environment: Mapping[str, str]) -> bool:
    """Returns whether this machine submits to a cluster without being one of its compute nodes; False where that cannot be told."""
    sinfo = shutil.which("sinfo")
    if "SLURM_JOB_ID" in environment or sinfo is None:
        return False
    places = (*_CONFIGURATIONS, Path(sinfo).resolve().parent.parent / "etc" / "slurm.conf")
    if "SLURM_CONF" not in environment and not any(path.is_file() for path in places):
        return False  # programs without a cluster: asking would take seconds
    host = socket.gethostname().partition(".")[0]
    try:
        ended = subprocess.run(["sinfo", "-h", "-N", "-o", "%N"], capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0 and bool(ended.stdout.split()) and host not in ended.stdout.split()


def run_script(path: Path) -> int:
    """Runs a job script in this allocation, as sbatch would on its first node, and returns its exit code; Ctrl-C asks the training to stop."""
    script = subprocess.Popen(["bash", str(path)], start_new_session=True, env=os.environ)

    def pass_on(number: int, frame: FrameType | None) -> None:
        script.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}
    try:
        return script.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
