"""`fullrank sync`: sends what a run kept for W&B, with the training side's python; once, or for as long as the run lasts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Annotated, Any

import typer

from launch.cli.options import Json, RunName, RunRoot, chosen_run
from launch.config.errors import EXIT_FAILED
from launch.config.run_dir import RunDir
from launch.runs import ALIVE, read_run

_MAX_FAILURES_IN_A_ROW = 5
_START_S = 60.0
"""What an upload may take beside the data: importing W&B on a slow file system."""


def sync(
    run: RunName = "latest",
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run has ended, from a machine with a network.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, metavar="SECONDS", help="Pause between two uploads with --watch.")] = 60.0,
    timeout: Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long one upload may take.")] = 300.0,
    run_root: RunRoot = None,
    as_json: Json = False,
) -> None:
    found = chosen_run(run, run_root)
    failures = 0
    while True:
        state = read_run(found).state  # asked first, so that what was written before the end is sent after it
        is_alive = state in ALIVE
        ended = _send(found, "running" if is_alive else state, timeout)
        failures = failures + 1 if ended.returncode == EXIT_FAILED else 0
        if ended.returncode == 0:
            _show(json.loads(ended.stdout), found, as_json)
        if ended.returncode not in (0, EXIT_FAILED) or not watch or failures >= _MAX_FAILURES_IN_A_ROW or not (is_alive or failures):
            raise typer.Exit(ended.returncode)
        time.sleep(every)


def _send(run: RunDir, state: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Makes one pass in a process of its own; one that hangs is ended, and counts as failed."""
    command = [sys.executable, "-P", "-m", "trainers.tracking.wandb_sync", str(run.path), "--state", state, "--timeout", str(timeout_s)]
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=3 * timeout_s + _START_S)
    except subprocess.TimeoutExpired:
        print(f"error: {run.path}: the upload did not end\n    try: fullrank sync again: it goes on from there", file=sys.stderr)
        return subprocess.CompletedProcess(command, EXIT_FAILED, "")


def _show(sent: dict[str, Any], run: RunDir, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run": str(run.path), **sent}), flush=True)
    elif sent["sent"] or sent["parts"]:
        parts = f", {len(sent['parts'])} offline part{'s' if len(sent['parts']) > 1 else ''}" if sent["parts"] else ""
        print(f"{sent['sent']} rows sent{parts}; W&B has {sent['rows']}", flush=True)
    else:
        print(f"nothing new; W&B has {sent['rows']} rows", flush=True)
