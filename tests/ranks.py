"""Starts the ranks of trainers.train by hand, as real processes; forked ones (tests/forked_ranks.py) where their start is not what is tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from launch.ports import held_port
from tests.environment import ROOT, clean_environment
from tests.forked_ranks import fork_ranks

TIMEOUT_S = 500
TRAIN = ("-P", "-m", "trainers.train")
_HELD = ExitStack()


def start_ranks(arguments: Sequence[str], num_processes: int, program: Sequence[str] = TRAIN, **environment: str) -> list[subprocess.Popen[str]]:
    """Returns the running ranks of `python -P -m trainers.train ARGUMENTS`, or of another program, found by each other over loopback."""
    port = hold_port()
    ranks = []
    for rank in range(num_processes):
        place = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": num_processes,
            "LOCAL_WORLD_SIZE": num_processes,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        variables = {name: str(value) for name, value in place.items()} if num_processes > 1 else {}
        ranks.append(
            subprocess.Popen(
                [sys.executable, *program, *arguments],
                env=clean_environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return ranks


def train(config: Path, run_dir: Path, *overrides: str, num_processes: int = 1, exit_code: int = 0, **environment: str) -> list[dict[str, Any]]:
    """Trains to the end, in forked ranks, and returns the records of metrics.jsonl; fails with their output if one ends otherwise than expected."""
    ranks = fork_ranks(["--config", str(config), "--run-dir", str(run_dir), *overrides], num_processes, **environment)
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [exit_code] * num_processes, "\n".join(outputs)
    return read_records(run_dir)


def read_records(run_dir: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Returns the records of a run's metrics.jsonl, of one split or of all."""
    path = run_dir / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return [record for record in records if split in (None, record["split"])]


def hold_port() -> int:
    """Returns a port for ranks to meet at; no other launch on this machine takes it while this process lives."""
    port = _HELD.enter_context(held_port(20011 + os.getpid() % 9000, num_tries=1000))
    assert port is not None, "1000 ports are taken"
    return port
