"""`fullrank plan`: what would happen; writes nothing."""

from __future__ import annotations

import json
import sys

import typer

from launch.cli.options import (
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
    default_run_root,
)
from launch.cli.planning import parse_target, plan_target
from launch.cli.show import plan_text
from launch.config.errors import EXIT_DONE, FullrankError
from launch.config.pipeline import find_pipeline
from launch.plan import LaunchPlan
from launch.preflight import preflight
from launch.probe import Probe
from launch.render import describe_plan, render_files


def plan(
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
    as_json: Json = False,
) -> None:
    if script is None and (pipeline := find_pipeline(experiment)):
        from launch.cli.pipelines import How, run_pipeline

        how = How(strategy, nodes, processes_per_node, launcher)
        raise typer.Exit(run_pipeline(pipeline, overrides or (), how, run_dir, run_root or default_run_root(), dry_run=True, as_json=as_json))
    target = parse_target(ctx, experiment, overrides, script)
    launch_plan, probe = plan_target(target, strategy, nodes, processes_per_node, launcher, run_dir, run_root)
    raise typer.Exit(print_plan(launch_plan, probe, as_json))


def print_plan(launch_plan: LaunchPlan, probe: Probe, as_json: bool) -> int:
    """Prints a plan to stdout, and what would keep it from starting to stderr; returns the exit code of the check, 0 if it would start."""
    files = render_files(launch_plan, probe)
    if as_json:
        print(json.dumps(describe_plan(launch_plan) | {"files": files}, indent=2, ensure_ascii=False))
    else:
        print(plan_text(launch_plan, files))
    try:
        preflight(launch_plan, probe)
    except FullrankError as error:
        for problem in error.problems:
            print(f"would not start: {problem}", file=sys.stderr)
        return error.exit_code
    return EXIT_DONE
