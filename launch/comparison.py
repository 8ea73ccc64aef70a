"""What differs between runs: (run directories) -> configuration, how they ran, scores; reads files, starts nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.config.errors import Problem, StateError
from launch.config.experiment import Evaluate, dump_experiment
from launch.config.load import flatten, load_experiment
from launch.config.metrics import NOT_METRICS, Record, read_with_damage, result_records
from launch.config.run_dir import RunDir, read_json
from launch.runs import ALIVE, read_run

Values = dict[str, list[Any]]
"""key -> its value in each run, in the order of the runs; None where a run has none."""

_NOT_SCORES = (*NOT_METRICS, "num_samples", "seconds", "lr", "gradient_norm", "samples_per_second", "tokens_per_second", "real_token_share")
_LAUNCH_KEYS = ("strategy", "engine", "device", "precision", "nodes", "world_size", "micro_batch_size", "gradient_accumulation_steps")


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Args:
        names: of the runs, short and different from each other.
        facts: what each is: state, step, attempts.
        configuration: the keys of resolved.yaml whose values differ.
        launch: what differs in how they ran: strategy, processes, code.
        scores: of the weights that are the result, and the training's speed.
        losses: (step, training loss) of each run.
        notes: what a reader should know before trusting the numbers.
    """

    names: list[str]
    runs: list[str]
    facts: Values
    configuration: Values
    launch: Values
    scores: Values
    losses: list[list[tuple[int, float]]]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {key: getattr(self, key) for key in ("names", "runs", "facts", "configuration", "launch", "scores", "notes")}


@dataclass(frozen=True)
class _Side:
    run: RunDir
    experiment: str
    state: str
    step: int | None
    configuration: dict[str, Any]
    launch: dict[str, Any]
    evaluate: Evaluate
    records: list[Record]
    damage: str | None


def compare_runs(runs: Sequence[RunDir]) -> Comparison:
    """Returns what differs between runs.

    Raises:
        StateError: fewer than two runs, one of them twice, or a script's run.
        ConfigError: a resolved.yaml that cannot be read.
    """
    paths = [run.path.resolve() for run in runs]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        what = "one run has nothing to be compared with" if len(paths) < 2 else "the same run is named twice"
        raise StateError(Problem(what, allowed="two different runs or more", fix="fullrank status shows them"))
    sides = [_read_side(run) for run in runs]
    return Comparison(
        names=_short_names(sides),
        runs=[str(side.run.path) for side in sides],
        facts={
            "experiment": [side.experiment for side in sides],
            "state": [side.state for side in sides],
            "step": [side.step for side in sides],
            "attempts": [last.number if (last := side.run.last_attempt()) else 0 for side in sides],
        },
        configuration=_differing([side.configuration for side in sides]),
        launch=_differing([side.launch for side in sides]),
        scores=_side_by_side([_scores(side) for side in sides]),
        losses=[[(record["step"], record["loss"]) for record in side.records if record["split"] == "train" and "loss" in record] for side in sides],
        notes=_notes(sides),
    )


def _read_side(run: RunDir) -> _Side:
    if not run.resolved.is_file():
        what = "is a script's run, or none: it has no resolved.yaml, and so nothing to compare"
        raise StateError(Problem(what, where=str(run.path), fix="name runs of experiments"))
    experiment = load_experiment(str(run.resolved)).experiment
    known = read_run(run) if run.status.is_file() else None
    last = run.last_attempt()
    plan, environment = (read_json(path) or {} for path in (last.plan, last.environment)) if last else ({}, {})
    code = environment.get("git") or {}
    records, damage = read_with_damage(run.metrics, is_completed=known is not None and known.state == "completed")
    launch = {key: plan.get(key) for key in _LAUNCH_KEYS} | {
        "code.commit": (code.get("commit") or "")[:12] or None,
        "code.is_dirty": code.get("is_dirty"),
    }
    return _Side(
        run=run,
        experiment=experiment.name,
        state=known.state if known else "unknown",
        step=known.status.get("step") if known else None,
        configuration=flatten(dump_experiment(experiment)),
        launch=launch | {f"versions.{name}": version for name, version in (environment.get("versions") or {}).items()},
        evaluate=experiment.evaluate,
        records=records,
        damage=damage,
    )


def _short_names(sides: Sequence[_Side]) -> list[str]:
    """Returns the shortest of these that tells the runs apart: last characters of the id, the id, experiment and id, the path."""
    forms: list[Callable[[_Side], str]] = [
        lambda side: side.run.run_id.rpartition("-")[2],
        lambda side: side.run.run_id,
        lambda side: f"{side.experiment}/{side.run.run_id}",
    ]
    for form in forms:
        names = [form(side) for side in sides]
        if len(set(names)) == len(names):
            return names
    return [str(side.run.path) for side in sides]


def _scores(side: _Side) -> dict[str, Any]:
    best = "best" if side.evaluate.test == "best" else "last"
    scores: dict[str, Any] = {}
    for split, record in result_records(side.records, side.evaluate).items():
        which = {"train": ", last", "validation": f", {best}"}.get(split, "")
        scores |= {f"{split} {key}{which}": value for key, value in record.items() if key not in _NOT_SCORES}
        if split == "validation":
            scores[f"{split} step{which}"] = record["step"]
    speeds = [record["samples_per_second"] for record in side.records if record.get("samples_per_second")]
    return scores | ({"samples a second (median)": statistics.median(speeds)} if speeds else {})


def _notes(sides: Sequence[_Side]) -> list[str]:
    names = _short_names(sides)
    notes = []
    experiments = list(dict.fromkeys(side.experiment for side in sides))
    if len(experiments) > 1:
        notes.append(f"these are runs of different experiments: {', '.join(experiments)}")
    if len({(side.configuration.get("data.source"), str(side.configuration.get("data.splits.validation"))) for side in sides}) > 1:
        notes.append("their data differs, so their scores are not of the same samples")
    for name, side in zip(names, sides, strict=True):
        if side.state in ALIVE:
            notes.append(f"{name} is still {side.state}: its numbers are not final")
        if side.damage:
            notes.append(f"{name}: {side.damage}")
        elif not side.records:
            notes.append(f"{name} has no records: it ended, or stands, before its first")
    return notes


def _differing(values: Sequence[Mapping[str, Any]]) -> Values:
    return {key: found for key, found in _side_by_side(values).items() if any(value != found[0] for value in found)}


def _side_by_side(values: Sequence[Mapping[str, Any]]) -> Values:
    keys = dict.fromkeys(key for one in values for key in one)
    return {key: [one.get(key) for one in values] for key in keys}
