"""`fullrank resume`: the next attempt of a run that ended early."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from launch.attempts import MAX_WITHOUT_PROGRESS, num_without_progress
from launch.backends import BACKENDS
from launch.cli.closing import print_closing
from launch.cli.options import Json, LauncherName, Nodes, Overrides, ProcessesPerNode, RunName, RunRoot, chosen_run, default_run_root
from launch.cli.output import code_kept
from launch.cli.pipelines import resume_pipeline
from launch.cli.planning import plan_again
from launch.cli.show import plan_headline, print_plan
from launch.config.errors import ConfigError, Problem, StateError
from launch.config.pipeline_dir import base_of_stage, find_base, was_submitted
from launch.config.run_dir import RunDir, read_json
from launch.plan_experiment import ExperimentPlan
from launch.preflight import preflight
from launch.runs import check_resumable, read_attempts

Strategy = Annotated[str | None, typer.Option("--strategy", metavar="NAME|FILE", help="Another strategy than the last attempt had.")]


def resume(
    run: RunName = "latest",
    overrides: Overrides = None,
    run_root: RunRoot = None,
    here: Annotated[bool, typer.Option("--here", help="Train on this machine, wherever the run was launched.")] = False,
    strategy: Strategy = None,
    nodes: Nodes = None,
    processes_per_node: ProcessesPerNode = None,
    launcher: LauncherName = "",
    force: Annotated[bool, typer.Option("--force", help="Accept changes that make it another training; they are recorded.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan; write and start nothing.")] = False,
    as_json: Json = False,
) -> None:
    if "=" in run:
        raise ConfigError(Problem(f"{run!r} stands where the run is named", fix=f"fullrank resume latest {run}"))
    base = find_base(run, run_root or default_run_root())
    found = None if base else chosen_run(run, run_root)
    base = base or (base_of_stage(found) if found else None)
    changes = {"strategy": strategy, "nodes": nodes, "processes_per_node": processes_per_node, "launcher": launcher}
    if base is not None and not here and was_submitted(base):
        from launch.cli.submit_pipeline import resume_submitted

        return resume_submitted(base, overrides or (), changes, force, dry_run, as_json)
    if base is not None:
        raise typer.Exit(resume_pipeline(base, overrides or (), changes, force, dry_run, as_json))
    assert found is not None
    if not here and found.cluster.is_file():
        from launch.cli.submit import announce, submit_again

        submitted = submit_again(found, overrides or (), strategy, nodes, processes_per_node, launcher, force, dry_run)
        return announce(submitted, as_json) if submitted else None
    backend = "local" if here else launched_by(found)
    plan, probe = plan_again(found, overrides or (), strategy, nodes, processes_per_node, launcher, force)
    check_resumable(found, plan.optimizer_steps if isinstance(plan, ExperimentPlan) else None)
    place = goes_on_from(found) if isinstance(plan, ExperimentPlan) else "where the script goes on"
    preflight(plan, probe)
    if dry_run:
        print(f"attempt {plan.attempt.number}: {place}", file=sys.stderr)
        raise typer.Exit(print_plan(plan, probe, as_json))
    attempts, newest_step = read_attempts(found)
    num_idle = num_without_progress(attempts, newest_step)
    if num_idle >= MAX_WITHOUT_PROGRESS:
        print(f"warning: the last {num_idle} attempts brought no new checkpoint; why the last one ended: fullrank logs {found.path}", file=sys.stderr)
    for change in getattr(plan, "forced_changes", ()):
        print(f"warning: forced, and recorded: {change}", file=sys.stderr)
    print(f"{plan_headline(plan)}\n{plan.run.path}: attempt {plan.attempt.number}, {place}", file=sys.stderr)
    ended = BACKENDS[backend].resume(plan, probe)
    with code_kept(ended.outcome.exit_code):
        print_closing(ended, as_json)
    raise typer.Exit(ended.outcome.exit_code)


def goes_on_from(run: RunDir) -> str:
    """Returns in words where the next attempt of an experiment begins.

    Raises:
        StateError: it was trained to its end, and nothing is left to train on from; or its checkpoints are no folder.
    """
    if run.checkpoints.exists() and not run.checkpoints.is_dir():
        raise StateError(Problem("is no folder, and checkpoints belong there", where=str(run.checkpoints), fix=f"rm {run.checkpoints}"))
    newest = run.newest_checkpoint()
    if newest is not None:
        return f"from {newest.name}"
    if (read_json(run.status) or {}).get("state") == "completed":
        what = "the run is completed, and none of its checkpoints is left to train on from: its model would be made anew"
        raise StateError(Problem(what, where=str(run.path), fix=f"fullrank run {run.resolved} for a new run"))
    return "from the beginning: it has no whole checkpoint"


def launched_by(run: RunDir) -> str:
    """Returns the backend that goes on with a run: the one that launched it.

    Raises:
        ConfigError: it is not one of this installation.
    """
    backend = (read_json(run.status) or {}).get("backend") or "local"
    if backend not in BACKENDS:
        what = f"the run was launched by {backend!r}, which is not here"
        raise ConfigError(Problem(what, where=str(run.path), allowed=", ".join(BACKENDS), fix=f"fullrank resume {run.path} --here"))
    return str(backend)
