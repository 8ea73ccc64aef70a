"""`fullrank report`: writes a run's report again, with the training side's python, and shows where it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import typer

from launch.cli.options import Json, RunName, RunRoot, chosen_run

_SHOWN_LINES = 25
_PICTURE = re.compile(r"!\[[^]]*\]\(([^)]+)\)")
"""A picture in Markdown, for which a terminal can only name the file."""


def report(run: RunName = "latest", run_root: RunRoot = None, as_json: Json = False) -> None:
    found = chosen_run(run, run_root)
    written = subprocess.run([sys.executable, "-P", "-m", "trainers.reports.report", str(found.path)], stdout=sys.stderr)
    if written.returncode:
        raise typer.Exit(written.returncode)
    if as_json:
        print(json.dumps({"run": str(found.path), "report": str(found.report), "page": str(found.report_page)}, indent=2))
        return
    print(f"{found.report}\n{found.report_page}\n")
    lines = [for_terminal(line, found.path) for line in found.report.read_text(encoding="utf-8").splitlines()]
    print("\n".join(lines[:_SHOWN_LINES]))
    if len(lines) > _SHOWN_LINES:
        print(f"... {len(lines) - _SHOWN_LINES} more lines in the file", file=sys.stderr)


def for_terminal(line: str, folder: Path) -> str:
    """Returns a line of the report with the path of each picture's file in its place."""
    return _PICTURE.sub(lambda link: str(folder / link[1]), line)
