"""`fullrank run`: trains on this machine."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from launch.backends import BACKENDS
from launch.cli.allocated import plan_allocated, run_allocated
from launch.cli.closing import print_closing
from launch.cli.options import (
    Debug,
    ExperimentName,
    Json,
    LauncherName,
    Nodes,
    OverfitBatch,
    Overrides,
    ProcessesPerNode,
    ProfileSteps,
    RunDirectory,
    RunRoot,
    ScriptPath,
    StrategyName,
    default_run_root,
)
from launch.cli.output import code_kept
from launch.cli.pipelines import run_pipeline
from launch.cli.planning import parse_target, plan_target
from launch.cli.show import plan_headline, print_plan
from launch.config.errors import ConfigError, PreflightError, Problem
from launch.config.modes import PLAIN, parse_mode
from launch.config.pipeline import find_pipeline
from launch.pipeline_runs import How
from launch.preflight import preflight
from launch.scheduler.allocation import is_login_node, read_allocation


def run(
    ctx: typer.Context,
    experiment: ExperimentName = None,
    overrides: Overrides = None,
    script: ScriptPath = None,
    strategy: StrategyName = "auto",
    nodes: Nodes = None,
    processes_per_node: ProcessesPerNode = None,
    launcher: LauncherName = "direct",
    run_dir: RunDirectory = None,
    run_root: RunRoot = None,
    debug: Debug = False,
    overfit_batch: OverfitBatch = False,
    profile_steps: ProfileSteps = None,
    here: Annotated[bool, typer.Option("--here", help="On this machine alone, also if it is a login node, or in an allocation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan; write and start nothing.")] = False,
    as_json: Json = False,
) -> None:
    mode = parse_mode(debug, overfit_batch, profile_steps, is_script=script is not None)
    if script is None and (pipeline := find_pipeline(experiment)):
        if mode != PLAIN or (read_allocation(os.environ) and not here):
            what = "a pipeline trains on this machine alone, and without --debug, --overfit-batch and --profile-steps"
            raise ConfigError(Problem(what, where=str(pipeline), fix="--here in an allocation; one of its experiments for the others"))
        how = How(strategy, nodes, processes_per_node, launcher)
        raise typer.Exit(run_pipeline(pipeline, overrides or (), how, run_dir, run_root or default_run_root(), dry_run, as_json))
    target = parse_target(ctx, experiment, overrides, script)
    allocation = None if here else read_allocation(os.environ)
    if allocation and allocation.nodes > 1:
        job, probe = plan_allocated(target, allocation, strategy, nodes, processes_per_node, launcher, run_dir, run_root)
        raise typer.Exit(run_allocated(job, probe, dry_run))
    if not here and not dry_run and is_login_node(os.environ):
        what = "this is a login node, which people share: a training does not belong here"
        raise PreflightError(Problem(what, fix="fullrank submit; or fullrank run inside salloc; or --here, for a minute of testing"))
    plan, probe = plan_target(target, strategy, nodes, processes_per_node, launcher, run_dir, run_root, mode)
    preflight(plan, probe)
    if dry_run:
        raise typer.Exit(print_plan(plan, probe, as_json))
    print(f"{plan_headline(plan)}\n{plan.run.path}", file=sys.stderr)
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    ended = BACKENDS["local"].start(plan, probe)
    with code_kept(ended.outcome.exit_code):
        print_closing(ended, as_json)
    raise typer.Exit(ended.outcome.exit_code)
