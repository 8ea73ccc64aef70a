"""`fullrank report`: writes a run's report again, with the training side's python, and shows where it is."""

from __future__ import annotations

import json
import subprocess
import sys

import typer

from launch.cli.options import Json, RunName, RunRoot, chosen_run

_SHOWN_LINES = 25


def report(run: RunName = "latest", run_root: RunRoot = None, as_json: Json = False) -> None:
    found = chosen_run(run, run_root)
    written = subprocess.run([sys.executable, "-P", "-m", "trainers.report", str(found.path)], stdout=sys.stderr)
    if written.returncode:
        raise typer.Exit(written.returncode)
    if as_json:
        print(json.dumps({"run": str(found.path), "report": str(found.report), "page": str(found.report_page)}, indent=2))
        return
    print(f"{found.report}\n{found.report_page}\n")
    lines = found.report.read_text(encoding="utf-8").splitlines()
    print("\n".join(lines[:_SHOWN_LINES]))
    if len(lines) > _SHOWN_LINES:
        print(f"... {len(lines) - _SHOWN_LINES} more lines in the file", file=sys.stderr)
