"""`fullrank submit`: trains on a Slurm cluster."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from launch.backends import slurm as backend
from launch.checks.cluster import cluster_preflight, cluster_warnings
from launch.cli.options import (
    ClusterName,
    ExperimentName,
    Json,
    LauncherName,
    Nodes,
    Overrides,
    ProcessesPerNode,
    RunDirectory,
    RunRoot,
    ScriptPath,
    StrategyName,
    chosen_cluster,
    default_run_root,
)
from launch.cli.planning import Target, parse_target, plan_again, plan_target
from launch.cli.show import plan_headline
from launch.config.cluster import LoadedCluster, load_cluster
from launch.config.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, ConfigError, Problem, StateError
from launch.config.pipeline import find_pipeline
from launch.config.run_dir import RunDir, State
from launch.pipeline_runs import How
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.probe import Probe, probe_machine
from launch.runs import check_resumable, read_run
from launch.scheduler.commands import Site, ask_site, has_slurm, own_defaults, try_site
from launch.scheduler.plan import Before, JobOptions, SlurmJob, node_machine, plan_job, with_options
from launch.scheduler.render import render_sbatch
from launch.scheduler.restarts import choose_restart
from launch.sizes.save_time import find_save_time

_EXIT_CODES: dict[State, int] = {"stopped": EXIT_STOPPED, "cancelled": EXIT_INTERRUPTED}


def submit(
    ctx: typer.Context,
    experiment: ExperimentName = None,
    overrides: Overrides = None,
    script: ScriptPath = None,
    cluster: ClusterName = None,
    strategy: StrategyName = "auto",
    nodes: Nodes = None,
    processes_per_node: ProcessesPerNode = None,
    gpus_per_node: Annotated[int | None, typer.Option("--gpus-per-node", min=0, metavar="N", help="GPUs on each node.")] = None,
    time: Annotated[str | None, typer.Option("--time", metavar="LIMIT", help="Time limit of the job, e.g. 12:00:00.")] = None,
    partition: Annotated[str | None, typer.Option("--partition", metavar="NAME", help="Partition.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, metavar="N", help="Runs with N seeds, as one array job.")] = None,
    grid: Annotated[list[str] | None, typer.Option("--grid", metavar="KEY=V,V", help="A run for each value; several grids: each with each.")] = None,
    at_most: Annotated[int | None, typer.Option("--at-most", min=1, metavar="N", help="Tasks of the array that run at a time.")] = None,
    chain: Annotated[
        int | None, typer.Option("--chain", min=1, metavar="N", help="Jobs one after another, each going on where the last stopped.")
    ] = None,
    launcher: LauncherName = "direct",
    run_dir: RunDirectory = None,
    run_root: RunRoot = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for the job, show its log, and end as it did.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the script; write and submit nothing.")] = False,
    as_json: Json = False,
) -> None:
    pipeline = find_pipeline(experiment) if script is None else None
    target = Target() if pipeline else parse_target(ctx, experiment, overrides, script)
    loaded = chosen_cluster(cluster)
    options = JobOptions(gpus_per_node, time, partition, at_most, chain=chain)
    site = _find_site(dry_run)
    loaded = LoadedCluster(with_options(loaded.cluster, options), loaded.document)
    here = probe_machine()
    root = Path(loaded.cluster.run_root) if loaded.cluster.run_root and run_root is None else run_root
    machine = node_machine(loaded.cluster, loaded.name, here)
    if pipeline:
        from launch.cli.submit_pipeline import submit_pipeline

        if seeds is not None or grid:
            what = "--seeds and --grid are for one experiment, and this is a pipeline of several"
            raise ConfigError(Problem(what, str(pipeline), fix="fullrank submit once for each value: STAGE.KEY=VALUE"))
        how = How(strategy, nodes, processes_per_node, launcher)
        runs = submit_pipeline(
            pipeline, overrides or (), how, loaded, options, site, machine, here.python, run_dir, root or default_run_root(), dry_run, as_json
        )
        if follow:
            follow_all(runs)
        return
    if seeds is not None or grid:
        from launch.cli.submit_array import Many, submit_many

        many = Many(target, seeds, tuple(grid or ()), strategy, nodes, processes_per_node, launcher, root, machine)
        submit_many(many, loaded, options, site, here.python, run_dir, follow, dry_run, as_json)
        return
    plan, probe = plan_target(target, strategy, nodes, processes_per_node, launcher, run_dir, root, machine=machine)
    job = make_job(plan, probe, loaded, options, here.python, site)
    if dry_run:
        print(render_sbatch(backend.snapshot_paths(job)), end="")
        return
    for warning in [*plan.warnings, *cluster_warnings(job, site)]:
        print(f"warning: {warning}", file=sys.stderr)
    submitted = backend.submit(job, probe)
    announce(submitted, as_json)
    if follow:
        follow_all([plan.run])


def follow_all(runs: Sequence[RunDir]) -> NoReturn:
    """Shows the log of one run after another, and ends as the first that did not complete.

    Raises:
        Exit: always, with that run's code, or 0.
    """
    from launch.cli.logs import logs

    for run in runs:
        with suppress(StateError):  # it ended before there was a log
            logs(str(run.path), follow=True)
        state = read_run(run)
        why = state.note or state.status.get("message")
        print(f"{state.state}{f': {why}' if why else ''}", file=sys.stderr)
        if state.state != "completed":
            raise typer.Exit(_EXIT_CODES.get(state.state, EXIT_FAILED))
    raise typer.Exit(EXIT_DONE)


def submit_again(
    run: RunDir,
    overrides: Sequence[str],
    strategy: str | None,
    nodes: int | None,
    processes_per_node: int | None,
    launcher: str,
    force: bool,
    dry_run: bool,
    before: Before | None = None,
) -> backend.Submitted | None:
    """Submits the next attempt of a run, on the cluster that it was submitted to; a dry run prints its script.

    Raises:
        FullrankError: with every problem at once.
    """
    loaded, here = load_cluster(str(run.cluster)), probe_machine()
    site = _find_site(dry_run)
    machine = node_machine(loaded.cluster, run.run_id, here)
    plan, probe = plan_again(run, overrides, strategy, nodes, processes_per_node, launcher, force, machine)
    check_resumable(run, plan.optimizer_steps if isinstance(plan, ExperimentPlan) else None)
    job = replace(make_job(plan, probe, loaded, JobOptions(), here.python, site), before=before)
    if dry_run:
        print(render_sbatch(backend.snapshot_paths(job)), end="")
        return None
    for warning in [*plan.warnings, *cluster_warnings(job, site)]:
        print(f"warning: {warning}", file=sys.stderr)
    return backend.resume(job, probe)


def _find_site(dry_run: bool) -> Site | None:
    """Returns what the cluster says of itself; a dry run goes on where it cannot be asked.

    Raises:
        PreflightError, SlurmError: a job is to be submitted, and it cannot be asked.
    """
    if not dry_run:
        return ask_site()
    if not has_slurm():
        return None
    site, unasked = try_site()
    if unasked:
        print(f"warning: {unasked.what}: what the cluster has could not be asked", file=sys.stderr)
    return site


def make_job(
    plan: LaunchPlan,
    probe: Probe,
    loaded: LoadedCluster,
    options: JobOptions,
    host_python: str,
    site: Site | None,
    runs: tuple[Path, ...] = (),
    home: Path | None = None,
) -> SlurmJob:
    """Returns the job of a plan, after every check.

    Raises:
        ConfigError, PreflightError: with every problem at once.
    """
    if plan.launcher not in ("direct", "accelerate"):
        what = f"{plan.launcher!r} is for one machine"
        raise ConfigError(Problem(what, key="--launcher", allowed="direct (one agent a node), accelerate (srun and accelerate launch alone)"))
    restart = choose_restart(loaded.cluster, options.chain, site, is_array=bool(runs))
    job = plan_job(plan, loaded.cluster, options, host_python, restart, find_save_time(plan), runs, home)
    cluster_preflight(job, loaded, probe, site)
    return job


def announce(submitted: backend.Submitted, as_json: bool) -> None:
    """Prints the job and how to follow it."""
    plan, ids = submitted.job.plan, submitted.job_ids
    if as_json:
        facts: dict[str, Any] = {"run": str(plan.run.path), "job_id": ids[0], "job_ids": list(ids), "script": str(submitted.job.script)}
        print(json.dumps(facts, indent=2))
        return
    defaults = own_defaults(os.environ)
    if defaults:
        print(f"your own defaults count too: {' '.join(f'{name}={value}' for name, value in defaults.items())}", file=sys.stderr)
    nodes = f"{plan.nodes} node{'s' if plan.nodes > 1 else ''} x {plan.processes_per_node}"
    print(f"{plan_headline(plan)} ({nodes})", file=sys.stderr)
    print(f"job {' -> '.join(ids)}  {plan.run.path}")
    print(f"  {describe_warning(submitted.job)}", file=sys.stderr)
    for words in (f"logs -f {plan.run.run_id}", f"status {plan.run.run_id}", f"cancel {plan.run.run_id}"):
        print(f"  fullrank {words}", file=sys.stderr)


def describe_warning(job: SlurmJob) -> str:
    """Returns when the training is told to save, and where that comes from."""
    why = "warning_s in the cluster file" if job.cluster.warning_s is not None else job.save.origin if job.save else "no save was measured yet"
    limit = f"its time limit of {job.cluster.time_limit}" if job.cluster.time_limit else "its time limit"
    return f"saves and stops {job.warning_s} s before {limit} ({why})"
