"""One training handed from engine to engine: every engine goes on from every other's checkpoint, on 1, 2 and 3 processes.

    python benchmarks/moves.py [--engines ddp,fsdp2,zero1,zero2,zero3] [--optimizer adamw|sgd] [--folder DIR]

Legs of two optimizer steps, each ended by a real SIGTERM before its checkpoint; the way through the engines takes every ordered pair of two
different ones once. AdamW (its moments and counts travel too), weight decay and clipping; fp32, no dropout. Prints the largest relative
difference of a loss and of a gradient norm from one process that nobody stopped; exit code 1 above 1e-5.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bit_identity
import forked

from tests.engines import ADAMW, SGD, told, write_experiment, write_strategies

STEPS_A_LEG = 2
PROCESSES = (2, 1, 3)
CLOSE = 1e-5


def main(typed: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="ddp,fsdp2,zero1,zero2,zero3")
    parser.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args(typed)
    forked.load_engines()
    way = way_through_all_pairs(options.engines.split(","))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("FULLRANK_CACHE", str(folder / "cache"))
        config = write_experiment(folder)
        write_strategies(folder)
        kind = (*ADAMW, "train.gradient_clip_norm=0.5") if options.optimizer == "adamw" else (*SGD, "optimizer.momentum=0.5")
        words = ["--config", str(config), *kind, f"train.duration={STEPS_A_LEG * len(way)} steps", "checkpoint.keep=100"]
        leg(folder / "whole", words, None, 1, None)
        for number, engine in enumerate(way):
            is_last = number == len(way) - 1
            leg(folder / "moved", words, told(folder, engine), PROCESSES[number % len(PROCESSES)], None if is_last else STEPS_A_LEG)
        mine, theirs = ([r for r in forked.read_records(folder / name) if r["split"] == "train"] for name in ("moved", "whole"))
    print(" -> ".join(f"{engine} x{PROCESSES[number % len(PROCESSES)]}" for number, engine in enumerate(way)))
    if [record["step"] for record in mine] != [record["step"] for record in theirs]:
        print(f"the steps are {[record['step'] for record in mine]}")
        return 1
    worst = {name: max(abs(a[name] / b[name] - 1) for a, b in zip(mine, theirs, strict=True)) for name in ("loss", "gradient_norm")}
    print(f"{len(way)} legs, {len(way) - 1} moves, {len(mine)} steps of {options.optimizer}; from one process at most: ", end="")
    print(", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
    return int(max(worst.values()) > CLOSE)


def way_through_all_pairs(names: Sequence[str]) -> list[str]:
    """Returns a round trip that goes from each name to each other exactly once (an Eulerian circuit; Hierholzer 1873)."""
    left = {name: [other for other in names if other != name] for name in names}
    path, circuit = [names[0]], list[str]()
    while path:
        following = left[path[-1]]
        if following:
            path.append(following.pop())
        else:
            circuit.append(path.pop())
    return circuit[::-1]


def leg(run: Path, words: list[str], strategy: list[str] | None, num_processes: int, num_steps: int | None) -> None:
    """Trains on for some steps, until a signal ends it, or (None) to the end; exits if the ranks did something else."""
    logs = run.with_name(f"{run.name}.logs")
    warn = bit_identity.before_step(0, num_steps - 1) if num_steps else None
    codes = forked.wait(forked.start([*words, *(strategy or []), "--run-dir", str(run)], num_processes, logs, warn))
    if codes != [75 if num_steps else 0] * num_processes:
        sys.exit(f"{run.name} under {strategy} ended with {codes}: " + (logs / "rank_0.log").read_text(errors="replace")[-3000:])


if __name__ == "__main__":
    sys.exit(main())
