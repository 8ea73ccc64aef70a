"""Runs on the test cluster, as one sees them from outside, and what is done to them there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.network import processes_on
from tests.ranks import read_records

ALIVE = ("pending", "running", "stopping", "requeued")
STEPS = 400
LONG = (f"train.duration={STEPS} steps", "checkpoint.every=40 steps", "evaluate.every=null")
"""Long enough to be stopped in the middle: about ten seconds on a quiet machine."""

PATIENCE_S = 400
SLOW_SAVE_S = float(os.environ.get("FULLRANK_TEST_SLOW_SAVE", "8"))
"""Ninety seconds where all of it is to be shown: docs/measurements.md."""


def logs_of(run: Path) -> str:
    """Returns every log of a run, for a failing test."""
    paths = [*run.glob("jobs/*"), *run.glob("attempts/*/*.log")]
    return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-2000:]}" for path in paths)


def losses(run: Path) -> dict[int, float]:
    """Returns {step: training loss}, and fails if a step stands twice."""
    records = read_records(run, "train")
    twice = [step for step, count in Counter(record["step"] for record in records).items() if count > 1]
    assert not twice
    return {record["step"]: record["loss"] for record in records}


def weights(run: Path) -> str:
    """Returns the hash of the final weights."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def last_step(run: Path) -> int:
    records = read_records(run, "train")
    return records[-1]["step"] if records else 0


def settled(fullrank, run: Path) -> dict[str, Any]:
    """Returns what `fullrank status` says of a run once that is neither waiting nor running."""
    deadline = time.monotonic() + 60
    while (status := json.loads(fullrank("status", str(run), "--json").stdout))["state"] in ALIVE and time.monotonic() < deadline:
        time.sleep(0.5)
    return dict(status)


def until_attempt(run: Path, number: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (run / "attempts" / f"{number:04d}" / "start.json").exists():
        assert time.monotonic() < deadline, logs_of(run)
        time.sleep(0.3)


def whole_run(undisturbed: dict[str, Path], submit, until) -> Path:
    """Returns the run that nothing has disturbed."""
    if not undisturbed:
        undisturbed["run"] = submit("--nodes", "2", *LONG)
        until(undisturbed["run"], "completed")
    return undisturbed["run"]


def preempt(cluster: Cluster) -> None:
    """Lets an urgent job take all nodes for a moment."""
    cluster.command("srun", "--partition=urgent", "--nodes=3", "--ntasks=3", "--time=1", "sleep", "1", timeout_s=PATIENCE_S)


def rank_pid(cluster: Cluster, node: str, run: Path) -> int:
    """Returns the pid of the rank of a run on a node."""
    for pid in processes_on(next(one for one in cluster.nodes if one.name == node)):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"trainers.train" in words and str(run / "resolved.yaml").encode() in words:
            return pid
    raise AssertionError(f"no rank of {run} on {node}")


def freeze_in_save(run: Path, pid: int) -> float:
    """Stops a process for SLOW_SAVE_S as soon as the stopping training begins to write; returns when it was stopped."""
    deadline = time.monotonic() + PATIENCE_S
    while json.loads((run / "status.json").read_text())["state"] == "running":
        assert time.monotonic() < deadline, logs_of(run)
        time.sleep(0.001)
    os.kill(pid, signal.SIGSTOP)
    stopped = time.time()
    time.sleep(SLOW_SAVE_S)
    os.kill(pid, signal.SIGCONT)
    return stopped


def wait_for_nodes(cluster: Cluster) -> None:
    """Returns when every node is idle."""
    deadline = time.monotonic() + PATIENCE_S
    while (states := cluster.command("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split()) != ["idle"] * 3:
        assert time.monotonic() < deadline, states
        time.sleep(1)
