"""`fullrank plan`: what would happen; writes nothing."""

from __future__ import annotations

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
from launch.cli.pipelines import run_pipeline
from launch.cli.planning import parse_target, plan_target
from launch.cli.show import print_plan
from launch.config.pipeline import find_pipeline
from launch.pipeline_runs import How


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
        how = How(strategy, nodes, processes_per_node, launcher)
        raise typer.Exit(run_pipeline(pipeline, overrides or (), how, run_dir, run_root or default_run_root(), dry_run=True, as_json=as_json))
    target = parse_target(ctx, experiment, overrides, script)
    launch_plan, probe = plan_target(target, strategy, nodes, processes_per_node, launcher, run_dir, run_root)
    raise typer.Exit(print_plan(launch_plan, probe, as_json))
