"""`fullrank status`: how runs are doing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from launch.cli.options import Json, RunRoot, chosen_run, complete_run, default_run_root
from launch.cli.tables import table
from launch.config.errors import Problem
from launch.config.metrics import Record, last_records, read_metrics
from launch.config.pipeline_dir import find_base, stage_names, stage_runs
from launch.runs import ALIVE, RunState, Unreadable, list_runs, read_run
from launch.scheduler.sweeps import Sweep, find_sweep, read_results, result_rows

_MARKS = {"is_debug": ("debug", "a debug run"), "overfits_batch": ("overfit", "an overfit of one batch")}
"""What a run is, if not a training to its end: in the list of runs, and of its own."""


def status(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run directory, a run id, or latest. Without it: all runs.", autocompletion=complete_run)
    ] = None,
    run_root: RunRoot = None,
    as_json: Json = False,
) -> None:
    if run is not None and (sweep := find_sweep(run, run_root or default_run_root())):
        print_sweep(sweep, as_json)
        return
    if run is not None and not Path(run).is_dir() and (base := find_base(run, run_root or default_run_root())):
        print_pipeline(base, as_json)
        return
    if run is not None:
        state = read_run(chosen_run(run, run_root))
        print(json.dumps(_facts(state), indent=2) if as_json else "\n".join(one_run(state)))
        return
    root = run_root or default_run_root()
    states = list_runs(root)
    if as_json:
        print(json.dumps([state.as_dict() for state in states], indent=2))
    elif states:
        print("\n".join(table([("RUN", "EXPERIMENT", "STATE", "STEP", "SEEN"), *(_row(state, root) for state in states)])))
        _warn_of([state.problem for state in states if isinstance(state, Unreadable)])
    else:
        print(f"no runs under {root}\n    try: fullrank run quickstart", file=sys.stderr)


def print_pipeline(base: Path, as_json: bool) -> None:
    """Prints how far each stage of a pipeline is."""
    begun = {run.path.name.rpartition("-")[2]: run for run in stage_runs(base)}
    states = {name: read_run(run) for name, run in begun.items() if run.status.is_file()}
    left = [name for name in stage_names(base) if name not in states]
    if as_json:
        stages = [{"stage": name} | _facts(state) for name, state in states.items()] + [{"stage": name, "state": None} for name in left]
        print(json.dumps({"pipeline": str(base), "stages": stages}, indent=2))
        return
    rows = [(name, state.state, _progress(state.status), str(state.run.path)) for name, state in states.items()]
    print("\n".join(table([("STAGE", "STATE", "STEP", "RUN"), *rows, *((name, "not begun", "", "") for name in left)])))
    if left or any(state.state != "completed" for state in states.values()):
        print(f"go on with: fullrank resume {base}", file=sys.stderr)


def _warn_of(problems: Sequence[Problem]) -> None:
    """Says what is wrong with the newest of the runs that cannot be read."""
    if problems:
        many = f"{len(problems)} runs are unreadable; the newest: " if len(problems) > 1 else ""
        print(f"warning: {many}{problems[-1]}", file=sys.stderr)


def print_sweep(sweep: Sweep, as_json: bool) -> None:
    """Prints what each run of an array reached, the best on the validation split first.

    The test split is shown of that one alone, once all have ended: until then another may be chosen.
    """
    results = read_results(sweep)
    if as_json:
        print(json.dumps({"sweep": str(sweep.path), "metric": sweep.metric, "runs": [result.as_dict() for result in results]}, indent=2))
        return
    print("\n".join(table(result_rows(sweep, results))))
    left = sum(result.state.state in ALIVE for result in results)
    if left:
        print(f"{left} of {len(results)} runs have not ended; then the test split of the best one is shown", file=sys.stderr)
    elif results[0].value is not None and results[0].test:
        scores = "  ".join(
            f"{name} {value:.4f}" for name, value in results[0].test.items() if isinstance(value, float) and name in ("loss", sweep.metric)
        )
        print(f"test split, best run: {scores}")


def one_run(state: RunState) -> list[str]:
    """Returns the lines about one run: state, progress, last records, what to do."""
    found, rows = state.status, []
    cause = f" ({found['cause']})" if found.get("cause") and found["cause"] != state.state else ""
    marks = "".join(f", {mark}" for key, (_, mark) in _MARKS.items() if found.get(key))
    rows.append(("state", f"{state.state}{cause}{marks}"))
    rows.append(("step", _progress(found)))
    rows.append(("attempt", str(found.get("attempt", ""))))
    rows.append(("where", _where(found)))
    if state.note:
        rows.append(("slurm", state.note))
    if found.get("message"):
        rows.append(("message", str(found["message"]).splitlines()[0]))
    elif found.get("verdict"):
        rows.append(("verdict", str(found["verdict"])))
    for split, record in _last_records(state).items():
        numbers = {name: value for name, value in record.items() if isinstance(value, float) and name not in ("time", "epoch", "seconds")}
        rows.append((split, f"step {record.get('step')}  " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())))
    if state.state in ("stopped", "failed", "lost", "cancelled"):
        rows.append(("go on", f"fullrank resume {state.run.path}"))
    return [str(state.run.path), *(f"  {line}" for line in table(rows))]


def _where(found: dict[str, Any]) -> str:
    if found.get("backend") != "slurm":
        return f"{found.get('host', '?')}, pid {found.get('pid', '?')}, seen {_ago(found.get('heartbeat'))}"
    on = f" on {found['host']}" if found.get("host") else ""
    return f"job {found.get('job_id')}{on}, seen {_ago(found.get('heartbeat'))}"


def _facts(state: RunState) -> dict[str, Any]:
    return state.as_dict() | {"metrics": _last_records(state)}


def _last_records(state: RunState) -> dict[str, Record]:
    return last_records(read_metrics(state.run.metrics, is_completed=state.state == "completed"))


def _row(state: RunState | Unreadable, root: Path) -> tuple[str, ...]:
    folder = state.run.path.parent
    if isinstance(state, Unreadable):
        return (state.run.run_id, "-" if folder == root else folder.name, "unreadable", "-", "-")
    experiment = str(state.status.get("experiment") or "-") if folder == root else folder.name
    marks = [mark for key, (mark, _) in _MARKS.items() if state.status.get(key)]
    shown = f"{state.state} ({', '.join(marks)})" if marks else state.state
    return (state.run.run_id, experiment, shown, _progress(state.status), _ago(state.status.get("heartbeat")))


def _progress(status: dict[str, Any]) -> str:
    step, total = status.get("step"), status.get("total_steps")
    if status.get("overfits_batch") and status.get("state") == "completed":
        total = None  # it ends when the loss is gone; the total is what it may take at most
    return "-" if step is None else f"{step}/{total}" if total else str(step)


def _ago(moment: float | None) -> str:
    if moment is None:
        return "never"
    seconds = max(0.0, time.time() - moment)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
