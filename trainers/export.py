"""Writes a run's model in 8-bit integers, and judges it beside the original: python -P -m trainers.export RUN OUT

Started by `fullrank export`, one process on the CPU. Progress goes to stderr, a JSON object to stdout.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from launch.config.errors import ConfigError, FullrankError, Problem
from launch.config.load import load_experiment
from launch.config.resolve import resolve
from launch.config.run_dir import RunDir
from trainers.checkpoints.restoring import SavedWeights, restore_weights
from trainers.engine import Engine
from trainers.evaluation import Evaluation, Evaluator
from trainers.models.int8 import INT8_FILE, Int8Linear, load_int8, quantize, read_config, save_int8
from trainers.once import make_once
from trainers.own_code import use_own_code
from trainers.stopping import StopRequests
from trainers.tasks import Attaches, Task, build_task
from trainers.world import World

SPLITS = ("validation", "test")
"""What is judged: the first of these that the run has. A test split that the training has seen once is no secret any more."""

BATCH_SIZE = 32


def main(arguments: Sequence[str]) -> int:
    """Exports, and prints what came out; returns the exit code."""
    print(json.dumps(export(RunDir(Path(arguments[0])), Path(arguments[1]))))
    return 0


def export(run: RunDir, out: Path) -> dict[str, Any]:
    """Writes `out`, and returns {"split", "model", "int8"}: bytes of the weights, metrics and seconds of an evaluation of both.

    Raises:
        ConfigError: the model is damaged, none of transformers, or has no linear layers; `out` is not there then.
    """
    loaded = load_experiment(str(run.resolved), ())
    experiment = resolve(loaded)
    use_own_code(experiment, loaded.path)
    weights = run.model / "model.safetensors"
    if not (run.model / "config.json").is_file():
        raise ConfigError(Problem(f"{experiment.task.kind} leaves no model of transformers, and only those are exported", where=str(run.model)))
    read_config(run.model)
    task = build_task(experiment)
    network = task.build_model()
    restore_weights(_open_weights(weights, run), network)
    split = next((name for name in SPLITS if name in task.num_samples), None)
    before, after = _judge(task, network, split), None

    def make(folder: Path) -> None:
        nonlocal after
        names = quantize(network)
        if not any(isinstance(network.get_submodule(name), Int8Linear) for name in names):
            raise ConfigError(Problem(f"{type(network).__name__} has no linear layers that 8 bits make faster", where=str(run.model)))
        for path in run.model.iterdir():
            if path.is_file() and path != weights:
                shutil.copy(path, folder / path.name)
        save_int8(network, folder)
        written = load_int8(folder)  # what a user will load, not what is in memory here
        if isinstance(task, Attaches):
            task.attach(written)
        after = _judge(task, written, split)

    make_once(out, Path.is_dir, make, fix="--out DIR with room and write permission")
    return {"split": split, "model": _facts(weights, before), "int8": _facts(out / INT8_FILE, after)}


def _open_weights(file: Path, run: RunDir) -> SavedWeights:
    """Returns the weights of a run's model; raises ConfigError where the file is damaged."""
    try:
        return SavedWeights(file)
    except SafetensorError as error:
        fix = f"a copy of the file, or fullrank run {run.resolved} to train the model again"
        raise ConfigError(Problem(f"the weights are damaged: {error}", where=str(file), fix=fix)) from error


def _judge(task: Task, network: nn.Module, split: str | None) -> Evaluation | None:
    """Returns the evaluation of a split, every sample once; None: the run has nothing to judge by."""
    if split is None:
        return None
    evaluator = Evaluator(Engine(World(), None, "fp32"), task, StopRequests(), BATCH_SIZE, num_workers=0)
    return evaluator.evaluate(network, split)


def _facts(weights: Path, evaluation: Evaluation | None) -> dict[str, Any]:
    judged = {"metrics": evaluation.metrics, "seconds": evaluation.seconds, "num_samples": evaluation.num_samples} if evaluation else {}
    return {"num_bytes": weights.stat().st_size} | judged


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FullrankError as error:
        print(json.dumps({"problems": [asdict(problem) for problem in error.problems]}))
        sys.exit(error.exit_code)
