"""`fullrank verify`: is a run that was stopped and resumed the run that was never stopped?"""

from __future__ import annotations

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
from launch.verification import LocalTrainings, Trainings, expect_done, log_of, stop_and_resume

if TYPE_CHECKING:
    from launch.config.cluster import LoadedCluster
    from launch.plan_experiment import ExperimentPlan

_SHOWN = 8


def verify(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A shipped experiment, or the path of an experiment file.")],
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option("--steps", min=3, metavar="N", help="Optimizer steps of the short run.")] = 20,
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
    stop_at = stop_at or steps // 2
    if stop_at >= steps:
        raise ConfigError(Problem(f"{stop_at} is not before the last of {steps} steps", key="--stop-at", allowed=f"1 to {steps - 1}"))
    words = [*short_run(steps), *(overrides or [])]
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
    trainings = _trainings([experiment, *words, *options], cluster)
    _say(f"training {steps} steps, whole; log: {log_of(whole)}")
    expect_done(trainings.train(whole), whole, "the undisturbed training")
    _say(f"training again, with a {trainings.number.name} after step {stop_at} and a resume; log: {log_of(stopped)}")
    stopped_at = stop_and_resume(trainings, stopped, stop_at)
    comparison = compare_runs(whole, stopped)
    if as_json:
        print(json.dumps({"experiment": plan.name, "steps": steps, "stopped_at": stopped_at, "folder": str(folder), **_facts(comparison)}, indent=2))
    else:
        print(verdict(comparison, stopped_at))
    if not comparison.differences and run_dir is None:
        shutil.rmtree(folder, ignore_errors=True)
    elif not as_json:
        _say(f"both runs are in {folder}")
    raise typer.Exit(EXIT_FAILED if comparison.differences else EXIT_DONE)


def _plan_job(
    site: LoadedCluster, experiment: str, words: list[str], strategy: str, nodes: int | None, processes_per_node: int | None, run_root: Path | None
) -> ExperimentPlan:
    """Returns the plan of both trainings as jobs, after every check that submit makes.

    Raises:
        ConfigError, PreflightError: with every problem at once.
    """
    from launch.cli.submit import make_job
    from launch.plan_slurm import JobOptions, node_machine
    from launch.probe import probe_machine
    from launch.slurm import ask_site

    here = probe_machine()
    machine = node_machine(site.cluster, site.name, here)
    plan, probe = make_plan(experiment, words, strategy, nodes, processes_per_node, run_root=run_root, machine=machine)
    make_job(plan, probe, site, JobOptions(), here.python, ask_site())
    return plan


def _trainings(words: list[str], cluster: str | None) -> Trainings:
    if cluster is None:
        return LocalTrainings(words)
    from launch.drill import SlurmTrainings

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
