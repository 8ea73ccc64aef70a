"""`fullrank resume`: the next attempt of a run that ended early."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from launch.backends import BACKENDS
from launch.cli.closing import print_closing
from launch.cli.options import Json, LauncherName, RunName, RunRoot, chosen_run
from launch.cli.plan import print_plan
from launch.cli.planning import make_plan
from launch.cli.show import plan_headline
from launch.config.run_dir import RunDir, read_json
from launch.preflight import preflight
from launch.runs import check_resumable


def resume(
    run: RunName = "latest",
    run_root: RunRoot = None,
    launcher: LauncherName = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan; write and start nothing.")] = False,
    as_json: Json = False,
) -> None:
    found = chosen_run(run, run_root)
    check_resumable(found)
    last = last_plan(found)
    number = found.last_attempt()
    plan, probe = make_plan(
        str(found.resolved),
        strategy=last["strategy"],
        nodes=last["nodes"],
        processes_per_node=last["processes_per_node"],
        launcher=launcher or last["launcher"],
        run_dir=found.path,
        attempt=number.number + 1 if number else 1,
    )
    preflight(plan, probe)
    if dry_run:
        raise typer.Exit(print_plan(plan, probe, as_json))
    print(f"{plan_headline(plan)}\n{plan.run.path}: attempt {plan.attempt.number}", file=sys.stderr)
    ended = BACKENDS["local"].resume(plan, probe)
    print_closing(ended, as_json)
    raise typer.Exit(ended.outcome.exit_code)


def last_plan(run: RunDir) -> dict[str, Any]:
    """Returns how the newest attempt was started; an attempt that fullrank did not start is taken for one process on what is here."""
    attempt = run.last_attempt()
    plan = (read_json(attempt.plan) if attempt else None) or {}
    file = plan.get("strategy_file")
    return {
        "strategy": str(file if file and Path(file).is_file() else plan.get("strategy") or "auto"),
        "nodes": plan.get("nodes"),
        "processes_per_node": plan.get("processes_per_node"),
        "launcher": plan.get("launcher") or "direct",
    }
