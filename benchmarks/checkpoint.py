"""How long training stands still for a checkpoint of MiniLM, in the background and blocking, and what the agreement on stops costs a step.

    FULLRANK_DATA=../shared/data python benchmarks/checkpoint.py [--saves 9] [--steps 30] [--threads 2]

The model, AdamW's state and the files are those of a real fine-tuning (22.7 M parameters, 272 MB a checkpoint). Blocking and background saves
alternate; the first of each is not counted. The agreement is measured over two real processes, between the steps of a real training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import torch
from sst2 import MODEL

import trainers.loop
from launch.config.experiment import Checkpoint, dump_experiment
from launch.config.load import load_experiment
from launch.config.resolve import resolve
from launch.config.run_dir import RunDir
from trainers.checkpointing import Checkpoints, Progress
from trainers.engine import Engine
from trainers.optimizers import build_optimizer, build_schedule
from trainers.tasks import build_task
from trainers.world import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=9, help="of each kind")
    parser.add_argument("--steps", type=int, default=30, help="between which the agreement is measured")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the process that saves")
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")) / "sst2"
    if not (data / "train.tsv").is_file():
        sys.exit("FULLRANK_DATA does not name a folder with sst2/train.tsv in it: nothing was measured")
    overrides = [
        *[f"model.source={MODEL}", f"data.source={data.absolute()}", "data.splits.train=train.tsv", "data.splits.validation=null"],
        *["data.columns=[sentence, label]", "evaluate.metric=loss", "evaluate.mode=min", "evaluate.every=null", "checkpoint.every=null"],
        *[f"train.duration={options.steps} steps", "train.precision=fp32", "tracking.wandb.mode=disabled", "data.num_workers=0"],
    ]
    with tempfile.TemporaryDirectory() as scratch:
        agreement = measure_agreement(overrides, Path(scratch) / "agreement")  # first: it forks, and must not inherit threads
        torch.set_num_threads(options.threads)
        stalls = measure_saves(overrides, Path(scratch), options.saves)
    blocking, background = (statistics.median(stalls[kind]) for kind in ("blocking", "background"))
    for kind, seconds in stalls.items():
        spread = f"median of {len(seconds)}; {min(seconds):.3f} to {max(seconds):.3f}"
        print(f"{kind:<11} training stands still {statistics.median(seconds):.3f} s ({spread})")
    print(f"background / blocking: {background / blocking:.2f}")
    step, alone, together = (statistics.median(agreement[name]) for name in ("step", "count", "count_and_flags"))
    print(
        f"a step of 2 processes takes {step * 1e3:.1f} ms; its all-reduce of the count {alone * 1e3:.3f} ms, with the wishes to stop "
        f"{together * 1e3:.3f} ms: the agreement costs {max(0.0, together - alone) / step:.3%} of a step"
    )


def measure_saves(overrides: list[str], folder: Path, num_saves: int) -> dict[str, list[float]]:
    """Returns for how long save() held training up, in seconds, by kind."""
    experiment = resolve(load_experiment("bert_sst2", overrides))
    engine, task = Engine(World(), None, "fp32"), build_task(experiment)
    model, optimizer = engine.prepare(*_with_optimizer(task.build_model(), experiment))
    schedule = build_schedule(optimizer, experiment.schedule, 100, 10)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kinds = {
        kind: Checkpoints(RunDir(folder / kind), Checkpoint(keep=1, background=kind == "background"), engine, task, dump_experiment(experiment))
        for kind in ("blocking", "background")
    }
    stalls: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(num_saves + 1):
        for kind, checkpoints in kinds.items():
            started = time.perf_counter()
            checkpoints.save(model, optimizer, schedule, Progress(step=number + 1))
            stalls[kind].append(time.perf_counter() - started)
            checkpoints.wait()
    return {kind: seconds[1:] for kind, seconds in stalls.items()}


def measure_agreement(overrides: list[str], folder: Path) -> dict[str, list[float]]:
    """Returns seconds: of whole steps, of the all-reduce of one number, and of one with the flags, between real steps of two ranks."""
    folder.mkdir(parents=True)
    answer = folder / "seconds.json"
    ranks = forked.start(
        ["--config", "bert_sst2", "--run-dir", str(folder / "run"), *overrides], 2, folder, prepare=lambda rank: _time_steps(rank, answer)
    )
    codes = forked.wait(ranks, timeout_s=1200)
    if any(codes):
        sys.exit(f"the training ended with {codes}:\n{ranks[0].log.read_text()[-3000:]}")
    seconds: dict[str, list[float]] = json.loads(answer.read_text())
    return {name: values[2:] for name, values in seconds.items()}


def _time_steps(rank: int, answer: Path) -> None:
    original = trainers.loop.train_step
    seconds: dict[str, list[float]] = {"step": [], "count": [], "count_and_flags": []}

    def timed(training: Any, batches: Any) -> Any:
        result = _timed(seconds["step"], lambda: original(training, batches))
        sums = training.engine.sum_over_ranks
        for _ in range(20):
            _timed(seconds["count"], lambda: sums([1.0]))
            _timed(seconds["count_and_flags"], lambda: sums([1.0, *training.stops.flags()]))
        if rank == 0:
            answer.write_text(json.dumps(seconds))
        return result

    trainers.loop.train_step = timed


def _timed(seconds: list[float], action: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = action()
    seconds.append(time.perf_counter() - started)
    return result


def _with_optimizer(model: Any, experiment: Any) -> tuple[Any, Any]:
    return model, build_optimizer(model, experiment.optimizer)


if __name__ == "__main__":
    main()
