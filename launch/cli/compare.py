"""`fullrank compare`: runs side by side, in the terminal or as one HTML page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from launch.cli.options import Json, RunRoot, chosen_run, complete_run
from launch.cli.tables import table
from launch.comparison import Comparison, Values, compare_runs

_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 48


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Run directories or ids, or latest.", autocompletion=complete_run)],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the comparison as one HTML page, with the curves.")] = None,
    run_root: RunRoot = None,
    as_json: Json = False,
) -> None:
    found = compare_runs([chosen_run(name, run_root) for name in runs])
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    if html is not None:
        write_page(found, html)
    if as_json:
        print(json.dumps(found.as_dict() | ({"page": str(html)} if html else {}), indent=2))
    else:
        print("\n".join([*comparison_lines(found), *(["", str(html)] if html else [])]))


def comparison_lines(found: Comparison) -> list[str]:
    """Returns the comparison as text: a column a run, a section for what they are, differ in, and reached."""
    rows = [("", *found.names), *_rows(found.facts)]
    empty = ("",) * len(found.names)
    for title, values in (("configuration", found.configuration), ("launch", found.launch), ("scores", found.scores)):
        heading = title if values else f"{title}: none yet" if title == "scores" else f"{title}: no difference"
        rows += [("", *empty), (heading, *empty), *_rows(values)]
    curves = [f"  {name}  {curve}" for name, curve in zip(_padded(found.names), loss_curves(found.losses), strict=True) if curve]
    return [*table(rows), *(["", "training loss", *curves] if curves else [])]


def loss_curves(losses: Sequence[Sequence[tuple[int, float]]]) -> list[str]:
    """Returns each curve as a line of bars, over the same steps and on the same scale."""
    points = [point for curve in losses for point in curve]
    if not points:
        return ["" for _ in losses]
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    return [_bars(curve, range(first, last + 1), low, high) for curve in losses]


def write_page(found: Comparison, path: Path) -> None:
    """Writes the HTML page with the training side's python, which draws the curves.

    Raises:
        typer.Exit: it said why not.
    """
    facts = found.as_dict() | {"losses": found.losses}
    command = [sys.executable, "-P", "-m", "trainers.reports.comparison_page", str(path)]
    written = subprocess.run(command, input=json.dumps(facts), text=True, stdout=sys.stderr)
    if written.returncode:
        raise typer.Exit(written.returncode)


def _bars(curve: Sequence[tuple[int, float]], steps: range, low: float, high: float) -> str:
    columns: list[list[float]] = [[] for _ in range(_CURVE_WIDTH)]
    for step, loss in curve:
        columns[(step - steps.start) * _CURVE_WIDTH // len(steps)].append(loss)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    bars = ""
    for column in columns[: max((number for number, column in enumerate(columns) if column), default=-1) + 1]:
        bars += _BARS[round((sum(column) / len(column) - low) * scale)] if column else bars[-1:] or " "
    return bars


def _rows(values: Values) -> list[tuple[str, ...]]:
    return [(f"  {key}", *map(_shown, found)) for key, found in values.items()]


def _padded(names: Sequence[str]) -> list[str]:
    return [name.ljust(max(map(len, names))) for name in names]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1e-3 or abs(value) >= 1 else f"{value:.4f}".rstrip("0").rstrip(".")
    text = "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else f"...{text[-37:]}"
