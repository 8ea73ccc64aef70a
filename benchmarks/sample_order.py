"""Trains with 2 processes, stops, goes on with 1, stops, and ends with 3: do the same samples come, in the same steps, as in one process undisturbed?

    python benchmarks/sample_order.py [--seed 0] [--folder DIR]

Each rank writes down the indices that it really loads. Exit code 1 if a step saw others, or if a step came twice or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bit_identity
import forked
from forked_experiments import write_text_experiment

import trainers.loader

STEPS = 12
LAYOUTS = ((2, 5), (1, 9), (3, None))
"""(processes, the last step before their stop; None: they train to the end)."""


def main(typed: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args(typed)
    source = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("FULLRANK_CACHE", str(folder / "cache"))
        experiment = write_text_experiment(folder, STEPS, data__num_workers=0)
        expected = samples_of(experiment, folder / "whole", ((1, None),), source)
        found = samples_of(experiment, folder / "changing", LAYOUTS, source)
    wrong = [step for step in range(STEPS) if expected.get(step) != found.get(step)]
    print(f"{len(LAYOUTS)} attempts on 2, 1 and 3 processes: {STEPS - len(wrong)} of {STEPS} steps saw the samples of the undisturbed training")
    return int(bool(wrong) or len(expected) != STEPS)


def samples_of(experiment: Path, run: Path, layouts: Sequence[tuple[int, int | None]], source: random.Random) -> dict[int, list[int]]:
    """Trains a run through its layouts and returns the sorted indices that all ranks loaded for each step, once for each time they did."""
    notes = run.with_name(f"{run.name}.samples")
    notes.mkdir()
    for number, (num_processes, stop) in enumerate(layouts):
        chosen, first = source.randrange(num_processes), layouts[number - 1][1] or 0 if number else 0
        warn = bit_identity.before_step(chosen, stop - first - 1) if stop else None
        logs = run.with_name(f"{run.name}.logs")
        prepare = _prepared(warn, notes / str(number))
        codes = forked.wait(forked.start(["--config", str(experiment), "--run-dir", str(run)], num_processes, logs, prepare))
        if codes != [75 if stop else 0] * num_processes:
            raise SystemExit(f"the ranks ended with {codes}: {logs}")
        if stop and not (run / "checkpoints" / f"checkpoint-{stop}").is_dir():
            raise SystemExit(f"the training did not stop at step {stop}: {logs}")
    seen: dict[int, list[int]] = {}
    for file in notes.iterdir():
        for step, indices in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            seen.setdefault(step, []).extend(indices)
    return {step: sorted(indices) for step, indices in seen.items()}


def _prepared(warn: Callable[[int], None] | None, notes: Path) -> Callable[[int], None]:
    """Returns what lets each rank write down what it loads, and one of them get its signal."""

    def prepare(rank: int) -> None:
        original = trainers.loader._Steps.__getitem__

        def noted(self: Any, request: Any) -> Any:
            indices = [index for micro in request.micro_batches if not micro.is_padding for _, index in micro.keys]
            with notes.with_name(f"{notes.name}.{rank}").open("a", encoding="utf-8") as file:
                file.write(json.dumps([request.step, indices]) + "\n")
            return original(self, request)

        trainers.loader._Steps.__getitem__ = noted  # type: ignore[method-assign]
        if warn:
            warn(rank)

    return prepare


if __name__ == "__main__":
    sys.exit(main())
