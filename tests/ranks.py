"""Starts the ranks of trainers.train by hand, as real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 240


TRAIN = ("-P", "-m", "trainers.train")


def start_ranks(arguments: Sequence[str], num_processes: int, program: Sequence[str] = TRAIN, **environment: str) -> list[subprocess.Popen[str]]:
    """Returns the running ranks of `python -P -m trainers.train ARGUMENTS`, or of another program, found by each other over loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
    """Trains to the end and returns the records of metrics.jsonl; fails with the ranks' output if one ends otherwise than expected."""
    ranks = start_ranks(["--config", str(config), "--run-dir", str(run_dir), *overrides], num_processes, **environment)
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [exit_code] * num_processes, "\n".join(outputs)
    return read_records(run_dir)


def read_records(run_dir: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Returns the records of a run's metrics.jsonl, of one split or of all."""
    path = run_dir / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return [record for record in records if split in (None, record["split"])]


def clean_environment() -> dict[str, str]:
    """Returns this process's environment without what a launcher around the tests may have set."""
    dropped = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in dropped and not name.startswith(("FULLRANK_", "ACCELERATE_", "WANDB_"))}
