"""Many runs of one experiment, as one array job: seeds and grids, and the table of what came out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.config.errors import ConfigError, Problem
from launch.config.metrics import best_record, last_records, read_metrics
from launch.config.run_dir import RunDir, read_json
from launch.runs import RunState, read_run
from launch.scheduler.jobs import Jobs


@dataclass(frozen=True)
class Sweep:
    """An array of runs.

    Args:
        path: <run root>/<experiment>-sweeps/<id>, with the script, the job logs and the code of all runs.
        runs: run directory of each task, in order.
        overrides: what each run has of its own.
    """

    path: Path
    runs: tuple[RunDir, ...]
    overrides: tuple[tuple[str, ...], ...]
    metric: str
    mode: str


def combine(seeds: int | None, first_seed: int, grids: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the overrides of every run: each value of each grid with each of the others, and with each seed; pure.

    Raises:
        ConfigError: a grid is not KEY=VALUE,VALUE; or a key stands twice.
    """
    axes, keys = [], []
    for grid in grids:
        key, equals, text = grid.partition("=")
        values = _split(text)
        if not equals or not key or not all(values):
            raise ConfigError(Problem("is not of the form KEY=VALUE,VALUE", where=repr(grid), key="--grid", fix="--grid optimizer.lr=1e-5,3e-5"))
        keys.append(key)
        axes.append([f"{key}={value}" for value in values])
    if seeds is not None:
        keys.append("seed")
        axes.append([f"seed={seed}" for seed in range(first_seed, first_seed + seeds)])
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(Problem(f"{', '.join(twice)} stands twice", key="--grid", fix="one --grid a key, and --seeds or --grid seed=..."))
    return list(itertools.product(*axes))


def _split(text: str) -> list[str]:
    """Returns the values between commas; those inside brackets belong to a value."""
    values, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and not depth:
            values.append("")
        else:
            values[-1] += character
    return [value.strip() for value in values]


def find_sweep(name: str, root: Path) -> Sweep | None:
    """Returns the sweep that a directory or an id under the run root names; None: there is none."""
    direct = Path(name).expanduser()
    places = [direct] if (direct / "sweep.json").is_file() else sorted(path.parent for path in root.glob(f"*-sweeps/{name}/sweep.json"))
    facts = read_json(places[0] / "sweep.json") if len(places) == 1 else None
    if facts is None:
        return None
    runs = tuple(RunDir(Path(task["run"])) for task in facts["tasks"])
    return Sweep(places[0].absolute(), runs, tuple(tuple(task["overrides"]) for task in facts["tasks"]), facts["metric"], facts["mode"])


def describe_sweep(tasks: Iterable[tuple[Path, Sequence[str]]], metric: str, mode: str) -> dict[str, Any]:
    """Returns what sweep.json holds."""
    return {"metric": metric, "mode": mode, "tasks": [{"run": str(run), "overrides": list(overrides)} for run, overrides in tasks]}


@dataclass(frozen=True)
class Result:
    """What one run of a sweep reached; value None: nothing yet."""

    state: RunState
    overrides: tuple[str, ...]
    value: float | None
    test: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.state.run.path),
            "overrides": list(self.overrides),
            "state": self.state.state,
            "validation": self.value,
            "test": self.test,
        }


def read_results(sweep: Sweep) -> list[Result]:
    """Returns what every run reached, the best on the validation split first; Slurm is asked once."""
    from launch.config.load import load_experiment  # knows every task, and `status` of one run needs none

    jobs, results = Jobs(), []
    for run, overrides in zip(sweep.runs, sweep.overrides, strict=True):
        records = read_metrics(run.metrics)
        best = best_record(records, load_experiment(str(run.resolved)).experiment.evaluate) if records else None
        value = float(best[sweep.metric]) if best else None
        results.append(Result(read_run(run, jobs), overrides, value, last_records(records).get("test")))
    sign = -1 if sweep.mode == "max" else 1
    return sorted(results, key=lambda result: (result.value is None, sign * (result.value or 0.0)))


def result_rows(sweep: Sweep, results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Returns the table: tuned on validation, so that only the best run shows its test scores."""
    rows: list[tuple[str, ...]] = [("RUN", "STATE", *(override.partition("=")[0] for override in sweep.overrides[0]), f"VALIDATION {sweep.metric}")]
    for result in results:
        value = "-" if result.value is None else f"{result.value:.4f}"
        values = (override.partition("=")[2] for override in result.overrides)
        rows.append((result.state.run.run_id, result.state.state, *values, value))
    return rows
