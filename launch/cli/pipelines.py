"""A pipeline's stages through the path that every run takes: planned and checked together, then started or gone on with one after another."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from launch.backends import BACKENDS
from launch.cli.closing import closing_facts, print_closing
from launch.cli.planning import make_plan, plan_again
from launch.cli.show import plan_facts, plan_headline, print_plan, say_problems
from launch.config.errors import EXIT_DONE, ConfigError, FullrankError, Problem
from launch.config.new_run import new_run_id
from launch.config.pipeline import Pipeline, Stage, load_pipeline, typed_for
from launch.config.run_dir import RunDir
from launch.pipeline_runs import How, Started, read_start, write_start
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.preflight import preflight
from launch.probe import ExperimentProbe, Machine, Probe
from launch.runs import check_resumable

Planned = tuple[Stage, LaunchPlan, Probe]
PlannedStage = tuple[Stage, ExperimentPlan, ExperimentProbe]


def run_pipeline(path: Path, words: Sequence[str], how: How, run_dir: Path | None, run_root: Path, dry_run: bool, as_json: bool) -> int:
    """Trains the stages in new run directories; returns the exit code of the stage that ended early, else 0."""
    pipeline = load_pipeline(path, words)
    base = new_base(pipeline, run_dir, run_root)
    if dry_run:
        return print_stages(pipeline, base, plan_stages(pipeline, how, base), as_json)
    errors: list[FullrankError] = []  # whatever is wrong with any of them is said before the first one starts
    for stage in pipeline.stages:
        with collecting(errors, pipeline, stage):
            preflight(*checked_plan(pipeline, stage, how, base))
    raise_all(errors)
    return train_stages(write_start(pipeline, base, words, how), as_json)


def resume_pipeline(base: Path, words: Sequence[str], changes: Mapping[str, Any], force: bool, dry_run: bool, as_json: bool) -> int:
    """Goes on in the stage that stopped, then with those behind it; stages that are done are not repeated.

    Args:
        words: STAGE.KEY=VALUE or KEY=VALUE, for the stages that are not done.
        changes: of how the stages are launched.

    Raises:
        StateError: as read_start.
    """
    started = read_start(base, words)
    started = replace(started, how=replace(started.how, **{name: value for name, value in changes.items() if value}))
    typed = typed_for([stage.name for stage in started.pipeline.stages], words)
    if not dry_run:
        return train_stages(started, as_json, typed, changes.get("strategy"), force)
    left = [stage for stage in started.pipeline.stages if started.standing(stage) != "done"]
    strategy = changes.get("strategy")
    planned: list[Planned] = [(left[0], *plan_next(started, left[0], typed[left[0].name], strategy, force))]
    planned += [(stage, *plan_later(started, stage, typed[stage.name], strategy, force)) for stage in left[1:]]
    return print_stages(started.pipeline, base, planned, as_json)


def train_stages(
    started: Started, as_json: bool, typed: Mapping[str, Sequence[str]] | None = None, strategy: str | None = None, force: bool = False
) -> int:
    """Trains every stage that is not done, in order, and ends with the first that does not complete; returns its exit code, else 0."""
    told: list[dict[str, Any]] = []
    stages = started.pipeline.stages
    for stage in stages:
        title = f"stage {stage.number} of {len(stages)}, {stage.name}"
        if started.standing(stage) == "done":
            print(f"{title}: done, {started.run_of(stage).path}", file=sys.stderr)
            continue
        plan, probe = plan_next(started, stage, (typed or {}).get(stage.name, ()), strategy, force)
        preflight(plan, probe)
        is_new = started.standing(stage) == "new"
        print(f"{title}: {plan_headline(plan)}\n{plan.run.path}" + ("" if is_new else f": attempt {plan.attempt.number}"), file=sys.stderr)
        for warning in plan.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        local = BACKENDS["local"]
        ended = local.start(plan, probe) if is_new else local.resume(plan, probe)
        told.append({"stage": stage.name} | closing_facts(ended))
        if not as_json:
            print_closing(ended, is_stage=True)
        if ended.outcome.exit_code:
            print(f"the pipeline ended in {title}; go on with: fullrank resume {started.base}", file=sys.stderr)
            break
    if as_json:
        print(json.dumps({"stages": told}, indent=2))
    return next((int(facts["exit_code"]) for facts in told if facts["exit_code"]), EXIT_DONE)


def plan_next(started: Started, stage: Stage, typed: Sequence[str], strategy: str | None, force: bool) -> tuple[LaunchPlan, Probe]:
    """Returns the plan that a stage starts or goes on with; those it begins with are done.

    Args:
        strategy: another one than the stage's last attempt had.

    Raises:
        StateError: it is running, or its experiment's file has changed.
    """
    run, how = started.run_of(stage), started.how
    if started.standing(stage) == "begun":
        return plan_begun(run, how, typed, strategy, force)
    if not force:
        started.check_experiment(stage)
    words = started.pipeline.started(started.base, stage)
    return make_plan(stage.experiment, words, **asdict(how), run_dir=run.path, origins=started.pipeline.origins(stage, words))


def plan_later(started: Started, stage: Stage, typed: Sequence[str], strategy: str | None, force: bool) -> tuple[LaunchPlan, Probe]:
    """Returns the plan of a stage behind one that is not done yet."""
    if started.standing(stage) == "begun":
        return plan_begun(started.run_of(stage), started.how, typed, strategy, force)
    return checked_plan(started.pipeline, stage, started.how, started.base)


def plan_begun(run: RunDir, how: How, typed: Sequence[str], strategy: str | None, force: bool) -> tuple[LaunchPlan, Probe]:
    """Returns the plan of the next attempt of a stage."""
    plan, probe = plan_again(run, typed, strategy, how.nodes, how.processes_per_node, how.launcher, force)
    check_resumable(run, getattr(plan, "optimizer_steps", None))
    return plan, probe


def print_stages(pipeline: Pipeline, base: Path, planned: Sequence[Planned], as_json: bool) -> int:
    """Prints the plans of stages; returns the exit code of the first that would not start, else 0."""
    if as_json:
        facts = [{"stage": stage.name, "begins_with": dict(stage.begins_with)} | plan_facts(plan, probe) for stage, plan, probe in planned]
        print(json.dumps({"pipeline": str(base), "stages": facts}, indent=2, ensure_ascii=False))
    codes = []
    for stage, plan, probe in planned:
        begins = "".join(f", its {key} the model of stage {name}" for key, name in stage.begins_with.items())
        attempt = f", attempt {plan.attempt.number}" if plan.attempt.number > 1 else ""
        out = sys.stderr if as_json else sys.stdout
        print(f"== stage {stage.number} of {len(pipeline.stages)}: {stage.name}{attempt}{begins}", file=out)
        codes.append(say_problems(plan, probe) if as_json else print_plan(plan, probe, as_json=False))
        print(flush=True, file=out)
    return next((code for code in codes if code), EXIT_DONE)


def plan_pipeline(
    path: Path, words: Sequence[str], how: How, run_dir: Path | None, run_root: Path, machine: Machine | None = None
) -> list[PlannedStage]:
    """Returns the plan of every stage of a pipeline that is not started.

    Raises:
        FullrankError: with every problem of the file, or else of every stage.
    """
    pipeline = load_pipeline(path, words)
    return plan_stages(pipeline, how, new_base(pipeline, run_dir, run_root), machine)


def new_base(pipeline: Pipeline, run_dir: Path | None, run_root: Path) -> Path:
    """Returns what the run directories of a new pipeline begin with."""
    return (run_dir or run_root / pipeline.name / new_run_id()).expanduser().absolute()


def plan_stages(pipeline: Pipeline, how: How, base: Path, machine: Machine | None = None) -> list[PlannedStage]:
    """Returns the plan of every stage before the first is started.

    Raises:
        FullrankError: with every problem of every stage.
    """
    errors: list[FullrankError] = []
    planned = []
    for stage in pipeline.stages:
        with collecting(errors, pipeline, stage):
            planned.append((stage, *checked_plan(pipeline, stage, how, base, machine)))
    raise_all(errors)
    return planned


def checked_plan(pipeline: Pipeline, stage: Stage, how: How, base: Path, machine: Machine | None = None) -> tuple[ExperimentPlan, ExperimentProbe]:
    """Returns the plan of a stage before those it needs are done, with the models that they themselves begin with in the place of theirs."""
    words, run_dir = pipeline.checked(stage), pipeline.stage_dir(base, stage)
    return make_plan(stage.experiment, words, **asdict(how), run_dir=run_dir, machine=machine, origins=pipeline.origins(stage, words))


@contextmanager
def collecting(errors: list[FullrankError], pipeline: Pipeline, stage: Stage) -> Iterator[None]:
    """Keeps a stage's error for later, under the name of the stage."""
    try:
        yield
    except FullrankError as error:
        is_typed = any(re.match(r"[\w.]+=", problem.fix or "") for problem in error.problems)
        fix = f"{stage.name}.KEY=VALUE, where KEY=VALUE stands below" if is_typed else None
        heading = Problem(f"stage {stage.name} cannot start", str(pipeline.path), fix=fix)
        errors.append(type(error)(heading, *error.problems))


def raise_all(errors: Sequence[FullrankError]) -> None:
    """Raises one error of them all, if there are any: a ConfigError if one of them is."""
    if errors:
        kind = next((type(error) for error in errors if isinstance(error, ConfigError)), type(errors[0]))
        raise kind(*(problem for error in errors for problem in error.problems))
