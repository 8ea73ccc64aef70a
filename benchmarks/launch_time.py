"""Times the way from launch to the end of the first optimizer step, fullrank and the stock launchers in turn.

    python benchmarks/launch_time.py [--rounds 5] [--processes 1|2]

Every contender trains one step of the quickstart on 64 sentences, with the files and the command that `fullrank plan` renders for it;
the time is that of the first record in metrics.jsonl, less that of the launch. Times of the command line itself come first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
EXPERIMENT = ["quickstart", "train.duration=1 steps", "data.limit=64", "data.num_workers=0", "tracking.wandb.mode=disabled"]
LIMIT_S = 300


@dataclass(frozen=True)
class Contender:
    """A way to start ranks; `launcher` None is `fullrank run`, else the stock command that the plan renders."""

    name: str
    launcher: str | None
    num_processes: int


CONTENDERS = [
    Contender("python -m trainers.train", "direct", 1),
    Contender("fullrank run", None, 1),
    Contender("torchrun", "torchrun", 1),
    Contender("accelerate launch", "accelerate", 1),
    Contender("fullrank run", None, 2),
    Contender("torchrun", "torchrun", 2),
    Contender("accelerate launch", "accelerate", 2),
]
COMMANDS = [
    ("python -c pass", [sys.executable, "-c", "pass"]),
    ("fullrank --help", [str(BIN / "fullrank"), "--help"]),
    ("fullrank plan quickstart", [str(BIN / "fullrank"), "plan", "quickstart"]),
]


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that each contender runs, taking turns")
    parser.add_argument("--processes", type=int, choices=[1, 2], help="only the contenders with so many processes")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as scratch:
        print_table("command line", "s", [(name, [time_command(argv) for _ in range(10)]) for name, argv in COMMANDS])
        times: dict[Contender, list[float]] = {contender: [] for contender in CONTENDERS if options.processes in (None, contender.num_processes)}
        for number in range(options.rounds + 1):
            for contender, taken in times.items():
                seconds = time_first_step(contender, Path(scratch) / f"{number}-{contender.launcher}-{contender.num_processes}")
                taken += [seconds] if number else []  # round 0 warms caches: bytecode, weights, data
                print(f"round {number}  {contender.name} {contender.num_processes}  {seconds:.2f} s", file=sys.stderr, flush=True)
    print_table(
        "to the end of the first step",
        "s",
        [(f"{c.name}, {c.num_processes} process{'es' * (c.num_processes > 1)}", taken) for c, taken in times.items()],
    )


def time_command(argv: Sequence[str]) -> float:
    """Returns the seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def time_first_step(contender: Contender, run: Path) -> float:
    """Returns the seconds from the launch until the first optimizer step has ended, and waits for the end of the training."""
    options = ["--run-dir", str(run), "--processes-per-node", str(contender.num_processes)]
    if contender.launcher is None:
        command, environment = [str(BIN / "fullrank"), "run", *EXPERIMENT, *options], {}
    else:
        planned = subprocess.run(
            [str(BIN / "fullrank"), "plan", *EXPERIMENT, *options, "--launcher", contender.launcher, "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        plan = json.loads(planned.stdout)
        for name, text in plan["files"].items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(text, encoding="utf-8")
        command, environment = plan["command"], plan["environment"]
    started = time.time()
    ended = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S)
    if ended.returncode:
        sys.exit(f"{contender.name} failed:\n{ended.stdout}")
    first = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    return float(first["time"]) - started


def print_table(title: str, unit: str, rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    """Prints the median, the least and the most of each row."""
    print(f"\n{title:<40}{'median':>10}{'least':>10}{'most':>10}  {unit}")
    for name, values in rows:
        print(f"{name:<40}{statistics.median(values):>10.2f}{min(values):>10.2f}{max(values):>10.2f}", flush=True)


if __name__ == "__main__":
    main()
