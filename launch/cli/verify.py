"""`fullrank verify`: is a run that was stopped and resumed the run that was never stopped?"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.cli.options import Json, Nodes, Overrides, ProcessesPerNode, RunDirectory, RunRoot, StrategyName, complete_cluster, default_run_root
from launch.cli.planning import make_plan
from launch.config.errors import EXIT_DONE, EXIT_FAILED, ConfigError, Problem
from launch.config.new_run import new_run_id
from launch.config.run_dir import RunDir
from launch.identity import Comparison, compare_runs
from launch.preflight import preflight
from launch.verification import DoneTooSoonError, LocalTrainings, Trainings, expect_done, log_of, stop_and_resume

if TYPE_CHECKING:
    from launch.config.cluster import LoadedCluster
    from launch.plan_experiment import ExperimentPlan

_SHOWN = 8
_LENGTHS = (20, 200, 2000)
"""Optimizer steps that are tried, one after the other, until a stop comes before the end: a small model makes 20 in a few hundredths of a second."""


def verify(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A shipped experiment, or the path of an experiment file.")],
    overrides: Overrides = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=3, metavar="N", help="Optimizer steps of the short run. Default: 20; more if they are over too soon.")
    ] = None,
    stop_at: Annotated[
        int | None, typer.Option("--stop-at", min=1, metavar="STEP", help="Stop once this step is recorded. Default: halfway.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="NAME|FILE", help="Train both as Slurm jobs there: a drill.", autocompletion=complete_cluster),
    ] = None,
    strategy: StrategyName = "auto",
    nodes: Nodes = None,
    processes_per_node: ProcessesPerNode = None,
    run_dir: RunDirectory = None,
    run_root: RunRoot = None,
    as_json: Json = False,
) -> None:
    """Trains N steps whole, and again with a real signal in between and a resume; compares every record and every bit of the weights."""
    lengths = (steps,) if steps else _LENGTHS
    if stop_at and stop_at >= lengths[0]:
        raise ConfigError(Problem(f"{stop_at} is not before the last of {lengths[0]} steps", key="--stop-at", allowed=f"1 to {lengths[0] - 1}"))
    own = list(overrides or [])
    if refused := next((word for word in own if word.startswith("train.duration=")), None):
        raise ConfigError(Problem("verify chooses the length of the training", where=repr(refused), key="train.duration", fix="--steps N"))
    words = [*short_run(lengths[0]), *own]
    if cluster is None:
        plan, probe = make_plan(experiment, words, strategy, nodes, processes_per_node, run_root=run_root)
        preflight(plan, probe)
    else:
        from launch.config.cluster import load_cluster

        site = load_cluster(cluster)
        run_root = run_root or (Path(site.cluster.run_root) if site.cluster.run_root else None)
        plan = _plan_job(site, experiment, words, strategy, nodes, processes_per_node, run_root)
    folder = run_dir or (run_root or default_run_root()) / f"{plan.name}-verify" / new_run_id()
    folder = folder.expanduser().absolute()
    whole, stopped = RunDir(folder / "whole"), RunDir(folder / "stopped")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(Problem("the folder exists and is not empty", where=str(folder), fix="another --run-dir"))
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--strategy", strategy, "--nodes", str(plan.nodes), "--processes-per-node", str(plan.processes_per_node)]
    for length in lengths:
        trainings = _trainings([experiment, *short_run(length), *own, *options], cluster)
        try:
            stopped_at = _train_both(trainings, whole, stopped, length, stop_at or length // 2)
            break
        except DoneTooSoonError:
            if length == lengths[-1]:
                raise
            _say(f"{length} steps are over before a signal arrives; once more with ten times as many")
            _clear(folder)
    comparison = compare_runs(whole, stopped)
    if as_json:
        print(json.dumps({"experiment": plan.name, "steps": length, "stopped_at": stopped_at, "folder": str(folder), **_facts(comparison)}, indent=2))
    else:
        print(verdict(comparison, stopped_at))
    if not comparison.differences and run_dir is None:
        _remove(folder)
        if not as_json:
            _say("both runs are removed, with their logs; --run-dir DIR keeps them")
    elif not as_json:
        _say(f"both runs are in {folder}")
    raise typer.Exit(EXIT_FAILED if comparison.differences else EXIT_DONE)


def _train_both(trainings: Trainings, whole: RunDir, stopped: RunDir, steps: int, stop_at: int) -> int:
    """Trains one run whole, another with a stop and a resume, and returns the step that it stopped at."""
    _say(f"training {steps} steps, whole; log: {log_of(whole)}")
    expect_done(trainings.train(whole), whole, "the undisturbed training")
    _say(f"training again, with a {trainings.number.name} after step {stop_at} and a resume; log: {log_of(stopped)}")
    return stop_and_resume(trainings, stopped, stop_at)


def _remove(folder: Path) -> None:
    """Removes the folder, and the one around it if that was the last verification in it."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # it holds others
        folder.parent.rmdir()


def _clear(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _plan_job(
    site: LoadedCluster, experiment: str, words: list[str], strategy: str, nodes: int | None, processes_per_node: int | None, run_root: Path | None
) -> ExperimentPlan:
    """Returns the plan of both trainings as jobs, after every check that submit makes.

    Raises:
        ConfigError, PreflightError: with every problem at once.
    """
    from launch.cli.submit import make_job
    from launch.probe import probe_machine
    from launch.scheduler.commands import ask_site
    from launch.scheduler.plan import JobOptions, node_machine

    here = probe_machine()
    machine = node_machine(site.cluster, site.name, here)
    plan, probe = make_plan(experiment, words, strategy, nodes, processes_per_node, run_root=run_root, machine=machine)
    make_job(plan, probe, site, JobOptions(), here.python, ask_site())
    return plan


def _trainings(words: list[str], cluster: str | None) -> Trainings:
    if cluster is None:
        return LocalTrainings(words)
    from launch.scheduler.drill import SlurmTrainings

    return SlurmTrainings([*words, "--cluster", cluster])


def short_run(steps: int) -> list[str]:
    """Returns the overrides of a run that is short and says everything; a person's own come after these, and win."""
    evaluations = max(1, steps // 4)
    return [
        f"train.duration={steps} steps",
        f"evaluate.every={evaluations} steps",
        f"checkpoint.every={max(1, steps // 3)} steps",
        "tracking.log_every=1 step",
        "tracking.wandb.mode=disabled",
    ]


def verdict(comparison: Comparison, stopped_at: int) -> str:
    """Returns what a person reads."""
    what = f"stopped at step {stopped_at} and resumed: {comparison.num_records} records and {comparison.num_tensors} tensors compared"
    if not comparison.differences:
        return f"{what}, all the same to the last bit"
    shown = [f"  {difference}" for difference in comparison.differences[:_SHOWN]]
    more = len(comparison.differences) - _SHOWN
    return "\n".join([f"{what}, {len(comparison.differences)} differ:", *shown, *([f"  and {more} more"] if more > 0 else [])])


def _facts(comparison: Comparison) -> dict[str, object]:
    return {
        "is_identical": not comparison.differences,
        "num_records": comparison.num_records,
        "num_tensors": comparison.num_tensors,
        "differences": [vars(difference) for difference in comparison.differences],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
