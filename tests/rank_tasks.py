"""Trains one experiment on one rank, on two, and on two that are stopped half way and go on; every rank is forked from this process.

    PYTHONPATH=.:benchmarks python tests/rank_tasks.py

Reads a JSON object {"experiment", "folder"} a line from standard input, and answers with one on standard output: what tells the resumed run
from the whole one (nothing, if all went well), and the records of one rank and of two.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from forked import read_records, start, wait
from forked_experiments import differences

from trainers.heartbeat import Heartbeat

STOP_STEP = 5
"""After it, rank 1 of the run that is stopped gets the signal of a preemption."""


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(train_all(Path(asked["experiment"]), Path(asked["folder"]))), flush=True)


def train_all(experiment: Path, folder: Path) -> dict[str, Any]:
    """Returns {"differences", "one", "two"}, or {"failed": the ranks' output}."""
    one, two, stopped = (folder / name for name in ("one", "two", "stopped"))
    for run, num_processes, code in ((one, 1, 0), (two, 2, 0), (stopped, 2, 75), (stopped, 2, 0)):
        logs = folder / "logs" / f"{run.name}-{code}"
        ranks = start(["--config", str(experiment), "--run-dir", str(run)], num_processes, logs, _stop_later if code else None)
        if wait(ranks, timeout_s=240) != [code] * num_processes:
            return {"failed": "\n".join(path.read_text() for path in sorted(logs.iterdir()))}
    return {"differences": differences(two, stopped), "one": read_records(one), "two": read_records(two)}


def _stop_later(rank: int) -> None:
    """Lets rank 1 send itself a SIGTERM when it has made STOP_STEP steps; it finishes the next one with the others, saves and leaves."""
    beat = Heartbeat.beat

    def beat_and_stop(self: Heartbeat, step: int, phase: str = "training") -> None:
        beat(self, step, phase)
        if rank == 1 and step == STOP_STEP:
            os.kill(os.getpid(), signal.SIGTERM)

    Heartbeat.beat = beat_and_stop  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
