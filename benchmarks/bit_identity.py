"""Stops trainings in chosen places, resumes them, and compares them bit by bit with trainings that nobody stopped.

    python benchmarks/bit_identity.py [--tasks text,image] [--processes 1,2,3] [--precisions fp32,bf16] [--workers 0,2]
                                      [--places random,epoch_edge,mid_accumulation,evaluation,...] [--variants]
                                      [--strategy fsdp2|zero1|zero2|zero3] [--seed 0] [--folder DIR]

Prints a line for each combination; exit code 1 if any training was not the same. Compared are all records of metrics.jsonl, the
final model, and the last checkpoint: weights, optimizer, schedule and every random state.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import forked
from forked_experiments import differences, write_image_experiment, write_text_experiment

import trainers.assembly
import trainers.checkpointing
import trainers.engine
import trainers.evaluation
import trainers.loop
from tests.engines import STRATEGIES, told, write_strategies

STEPS, STEPS_PER_EPOCH = 21, 6
WRITERS = {"text": write_text_experiment, "image": write_image_experiment}
VARIANTS: dict[str, list[str]] = {
    "plateau": ["schedule={name: plateau}", "evaluate.every=3 steps"],
    "layer_decay": ["optimizer.layer_decay=0.9"],
    "frozen": ["model.freeze=[bert.embeddings.*]"],
    "early_stopping": ["evaluate.early_stopping={patience: 50}", "optimizer.name=sgd", "optimizer.lr=0.1"],
}
"""More kinds of state, for the text task in fp32 without workers."""


def main(typed: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="text,image")
    parser.add_argument("--processes", default="1,2,3")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--places", default=USUAL_PLACES, help=f"of {', '.join(PLACES)}")
    parser.add_argument("--variants", action="store_true", help="also plateau, layer_decay, frozen layers and early stopping")
    parser.add_argument("--strategy", choices=tuple(STRATEGIES), help="of tests/engines.py; default: one process, or DDP")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args(typed)
    if options.strategy:
        forked.load_engines()
    source = random.Random(options.seed)
    layouts = itertools.product(*(getattr(options, name).split(",") for name in ("tasks", "processes", "precisions", "workers")))
    rows = [(f"{task} x{n} {p} workers {w}", task, int(n), [f"train.precision={p}", f"data.num_workers={w}"]) for task, n, p, w in layouts]
    if options.variants:
        counts = [int(n) for n in options.processes.split(",")]
        rows += [(f"text x{n} {name}", "text", n, [*words, "data.num_workers=0"]) for name, words in VARIANTS.items() for n in counts]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("FULLRANK_CACHE", str(folder / "cache"))
        experiments = {task: WRITERS[task](folder, STEPS) for task in sorted({row[1] for row in rows})}
        write_strategies(folder)
        failed = total = 0
        for name, task, num_processes, settings in rows:
            words = [*told(folder, options.strategy), *settings]
            whole = folder / name.replace(" ", "_")
            codes = train(experiments[task], whole, num_processes, words)
            if any(codes):
                raise SystemExit(f"{name}: the undisturbed training ended with {codes}: {whole}.logs")
            for place in options.places.split(","):
                found, seconds = interrupt(experiments[task], whole, num_processes, words, place, source)
                total, failed = total + 1, failed + bool(found)
                print(f"{name:<28}{place:<18}{seconds:6.1f} s  {'; '.join(found) or 'the same'}", flush=True)
    print(f"{total - failed} of {total} interrupted trainings are bit-identical (seed {options.seed})")
    return int(failed > 0)


def interrupt(experiment: Path, whole: Path, num_processes: int, words: list[str], place: str, source: random.Random) -> tuple[list[str], float]:
    """Stops one training in a place, goes on with it, and returns what is not as in the undisturbed one, and the seconds it all took."""
    run, started, rank = whole.with_name(f"{whole.name}.{place}"), time.monotonic(), source.randrange(num_processes)
    for path in (run, run.with_name(f"{run.name}.logs")):
        shutil.rmtree(path, ignore_errors=True)
    ranks = forked.start(_arguments(experiment, run, words), num_processes, run.with_name(f"{run.name}.logs"), prepare=PLACES[place](rank, source))
    codes = forked.wait(ranks)
    if codes != [75] * num_processes:
        return [f"the ranks ended with {codes} instead of 75"], time.monotonic() - started
    again = train(experiment, run, num_processes, words)
    if any(again):
        return [f"the resumed ranks ended with {again}"], time.monotonic() - started
    return differences(whole, run), time.monotonic() - started


def train(experiment: Path, run: Path, num_processes: int, words: list[str]) -> list[int]:
    """Trains to the end and returns the exit codes."""
    return forked.wait(forked.start(_arguments(experiment, run, words), num_processes, run.with_name(f"{run.name}.logs")))


def _arguments(experiment: Path, run: Path, words: list[str]) -> list[str]:
    return ["--config", str(experiment), "--run-dir", str(run), *words]


def at_random(chosen: int, source: random.Random) -> Callable[[int], None]:
    """The signal comes at the start of any step but the first and the last two."""
    return before_step(chosen, source.randrange(1, STEPS - 2))


def at_epoch_edge(chosen: int, source: random.Random) -> Callable[[int], None]:
    """The last step of an epoch is the last one before the stop."""
    return before_step(chosen, STEPS_PER_EPOCH - 1)


def in_accumulation(chosen: int, source: random.Random) -> Callable[[int], None]:
    """The signal comes between two micro-batches of a step."""
    number = 2 * source.randrange(3, 10) + 1
    engines = [trainers.engine.Engine, *trainers.engine.Engine.__subclasses__()]
    patches = [_patch(chosen, engine, "backward", number) for engine in engines if "backward" in vars(engine)]

    def prepare(rank: int) -> None:
        for patch in patches:
            patch(rank)

    return prepare


def in_evaluation(chosen: int, source: random.Random) -> Callable[[int], None]:
    """The signal comes between two batches of an evaluation."""
    return _patch(chosen, trainers.evaluation, "move_batch", 2)


PLACES: dict[str, Callable[[int, random.Random], Callable[[int], None]]] = {
    "random": at_random,
    "epoch_edge": at_epoch_edge,
    "mid_accumulation": in_accumulation,
    "evaluation": in_evaluation,
    "joining": lambda chosen, source: _patch(chosen, trainers.assembly, "read_world", 1),
    "loading_data": lambda chosen, source: _patch(chosen, trainers.assembly, "build_task", 1),
    "loading_model": lambda chosen, source: _patch(chosen, trainers.assembly, "build_model", 1),
    "saving": lambda chosen, source: _patch(chosen, trainers.checkpointing.Checkpoints, "save", 1),
    "last_evaluation": lambda chosen, source: _patch(chosen, trainers.loop, "evaluate_last_step", 1),
    "test": lambda chosen, source: _patch(chosen, trainers.loop, "test", 1),
}
USUAL_PLACES = "random,epoch_edge,mid_accumulation,evaluation"


def before_step(chosen: int, step: int) -> Callable[[int], None]:
    return _patch(chosen, trainers.loop, "train_step", step + 1)


def _patch(chosen: int, owner: Any, name: str, number: int) -> Callable[[int], None]:
    """Returns what lets rank `chosen` get a SIGTERM when it calls a function for the `number`-th time."""

    def prepare(rank: int) -> None:
        if rank != chosen:
            return
        original, calls = getattr(owner, name), itertools.count(1)

        def signalled(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*args, **kwargs)

        setattr(owner, name, signalled)

    return prepare


if __name__ == "__main__":
    sys.exit(main())
