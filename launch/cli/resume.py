"""`fullrank resume`: the next attempt of a run that ended early."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from launch.backends import BACKENDS
from launch.cli.closing import print_closing
from launch.cli.options import Json, LauncherName, RunName, RunRoot, chosen_run
from launch.cli.plan import print_plan
from launch.cli.planning import plan_again
from launch.cli.show import plan_headline
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
    plan, probe = plan_again(found, launcher)
    preflight(plan, probe)
    if dry_run:
        raise typer.Exit(print_plan(plan, probe, as_json))
    print(f"{plan_headline(plan)}\n{plan.run.path}: attempt {plan.attempt.number}", file=sys.stderr)
    ended = BACKENDS["local"].resume(plan, probe)
    print_closing(ended, as_json)
    raise typer.Exit(ended.outcome.exit_code)
