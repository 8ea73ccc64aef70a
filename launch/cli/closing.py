"""The last lines of a training: how it ended, what came out, and how to go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from launch.backends.local import Ended
from launch.config.errors import EXIT_CONFIG
from launch.config.experiment import Experiment
from launch.config.metrics import read_metrics, result_records
from launch.config.run_dir import RunDir
from launch.failures import render_failure
from launch.plan_experiment import ExperimentPlan

_RANK_ON_TERMINAL = 0


def print_closing(ended: Ended, as_json: bool = False, is_stage: bool = False) -> None:
    """Prints results to stdout, and what went wrong to stderr.

    Args:
        is_stage: of a pipeline, which says itself how it goes on.
    """
    run, outcome = ended.plan.run, ended.outcome
    if outcome.failure:
        log = ended.plan.attempt.rank_log(outcome.failure.rank) if outcome.failure.rank is not None else ended.plan.attempt.job_log
        was_shown = outcome.failure.rank in (None, _RANK_ON_TERMINAL)
        if not (was_shown and outcome.failure.kind == "configuration"):  # one clear message, not two
            text = render_failure(outcome.failure, log if log.exists() else None, outcome.num_others, was_shown=was_shown)
            print(f"\n{text}", file=sys.stderr)
    if as_json:
        print(json.dumps(closing_facts(ended), indent=2))
    elif ended.state == "completed":
        if isinstance(ended.plan, ExperimentPlan):
            print("\n".join(completed_lines(run, ended.plan.experiment)))
    elif (
        not (is_stage or ended.was_told)
        and outcome.exit_code != EXIT_CONFIG
        and (ended.state == "stopped" or any(run.checkpoints.glob("*/manifest.json")))
    ):
        print(f"{ended.state}; go on with: fullrank resume {_short(run.path)}", file=sys.stderr)


def closing_facts(ended: Ended) -> dict[str, Any]:
    """Returns the same for programs."""
    failure, plan = ended.outcome.failure, ended.plan
    return {
        "run": str(ended.plan.run.path),
        "attempt": ended.plan.attempt.number,
        "state": ended.state,
        "exit_code": ended.outcome.exit_code,
        "metrics": result_records(read_metrics(plan.run.metrics), plan.experiment.evaluate) if isinstance(plan, ExperimentPlan) else {},
        "failure": failure.as_dict() if failure else None,
    }


def completed_lines(run: RunDir, experiment: Experiment) -> list[str]:
    """Returns the final scores, where everything is, and three lines of Python that use the model."""
    lines = []
    for split, record in result_records(read_metrics(run.metrics), experiment.evaluate).items():
        if split != "train":
            scores = "  ".join(
                f"{name} {value:.4f}" for name, value in record.items() if isinstance(value, float) and name not in ("time", "seconds", "epoch")
            )
            lines.append(f"{split:<10}  {scores}")
    lines += [f"{name:<10}  {_short(path)}" for name, path in (("model", run.model), ("report", run.report)) if path.exists()]
    if run.model.exists():
        lines += ["", *experiment.task.usage_of(_short(run.model), run.own_usage())]
    return lines


def _short(path: Path) -> str:
    """Returns the path as a person here would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
