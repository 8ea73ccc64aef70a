"""A pipeline's stages through the path that every run takes: planned and checked together, then started or gone on with one after another."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from launch.backends import BACKENDS
from launch.backends.local import Ended
from launch.cli.closing import closing_facts, print_closing
from launch.cli.planning import make_plan, plan_again
from launch.cli.show import plan_facts, plan_headline, print_plan, say_problems
from launch.config.errors import EXIT_DONE, ConfigError, FullrankError, Problem, StateError
from launch.config.new_run import new_run_id
from launch.config.pipeline import Pipeline, Stage, load_pipeline, typed_for
from launch.config.run_dir import RunDir, read_json, write_atomic, write_json
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.preflight import preflight
from launch.probe import ExperimentProbe, Machine, Probe
from launch.runs import check_resumable, read_run

_STAGE_DIR = re.compile(r"(?P<base>.+)\.\d+-[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class How:
    """How every stage is launched: what the command line says beside the experiment."""

    strategy: str = "auto"
    nodes: int | None = None
    processes_per_node: int | None = None
    launcher: str = "direct"


def run_pipeline(path: Path, words: Sequence[str], how: How, run_dir: Path | None, run_root: Path, dry_run: bool, as_json: bool) -> int:
    """Trains the stages in new run directories; returns the exit code of the stage that ended early, else 0."""
    pipeline = load_pipeline(path, words)
    base = new_base(pipeline, run_dir, run_root)
    if dry_run:
        return print_stages(pipeline, how, base, as_json)
    errors: list[FullrankError] = []  # whatever is wrong with any of them is said before the first one starts
    for stage in pipeline.stages:
        with collecting(errors, pipeline, stage):
            preflight(*checked_plan(pipeline, stage, how, base))
    raise_all(errors)
    write_start(base, path, words, how)
    return train_stages(pipeline, base, how, as_json)


def write_start(base: Path, path: Path, words: Sequence[str], how: How) -> None:
    """Writes down, beside the run directories to come, the pipeline and how it was started.

    Raises:
        ConfigError: another one was started there.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    if _file(base).exists():
        raise ConfigError(Problem("a pipeline has been started here", str(_file(base)), "--run-dir", fix=f"fullrank resume {base}"))
    write_json(_record(base), {"folder": str(path.parent.absolute()), "words": list(words), "how": asdict(how)})
    write_atomic(_file(base), path.read_text(encoding="utf-8"))


def print_stages(pipeline: Pipeline, how: How, base: Path, as_json: bool) -> int:
    """Prints the plan of every stage; returns the exit code of the first that would not start, else 0."""
    planned = plan_stages(pipeline, how, base)
    if as_json:
        facts = [{"stage": stage.name, "begins_with": dict(stage.begins_with)} | plan_facts(plan, probe) for stage, plan, probe in planned]
        print(json.dumps({"pipeline": str(base), "stages": facts}, indent=2, ensure_ascii=False))
    codes = []
    for stage, plan, probe in planned:
        begins = "".join(f", its {key} the model of stage {name}" for key, name in stage.begins_with.items())
        print(f"== stage {stage.number} of {len(pipeline.stages)}: {stage.name}{begins}", file=sys.stderr if as_json else sys.stdout)
        codes.append(say_problems(plan, probe) if as_json else print_plan(plan, probe, as_json=False))
        print(flush=True, file=sys.stderr if as_json else sys.stdout)
    return next((code for code in codes if code), EXIT_DONE)


def find_base(name: str, run_root: Path) -> Path | None:
    """Returns what the run directories of a pipeline's stages begin with: found by itself, by its id under the run root, or by a stage's run."""
    path = Path(name).expanduser().absolute()
    if _file(path).is_file():
        return path
    found = sorted(run_root.absolute().glob("*/*.pipeline.yaml"))
    named = [file.with_name(file.name.removesuffix(".pipeline.yaml")) for file in found if file.name.startswith(name)]
    return named[0] if len(named) == 1 else None


def base_of_stage(run: RunDir) -> Path | None:
    """Returns what the run directories of the pipeline begin with that a run is a stage of; None if it is none."""
    match = _STAGE_DIR.fullmatch(run.path.name)
    base = run.path.with_name(match["base"]) if match else None
    return base if base is not None and _file(base).is_file() else None


def was_submitted(base: Path) -> bool:
    """Returns whether a pipeline's stages are jobs of a cluster."""
    return any(RunDir(path).cluster.is_file() for path in base.parent.glob(f"{escape(base.name)}.*-*"))


def resume_pipeline(base: Path, words: Sequence[str], changes: Mapping[str, Any], force: bool, dry_run: bool, as_json: bool) -> int:
    """Goes on in the stage that stopped, then with those behind it; stages that are done are not repeated.

    Args:
        words: STAGE.KEY=VALUE or KEY=VALUE, for the stages that are not done.
        changes: of how the stages are launched.

    Raises:
        StateError: all stages are done, or one is running.
    """
    pipeline, how = read_start(base, words)
    how = replace(how, **{name: value for name, value in changes.items() if value})
    typed = typed_for([stage.name for stage in pipeline.stages], words)
    if dry_run:
        return print_stages(pipeline, how, base, as_json)
    return train_stages(pipeline, base, how, as_json, typed, force)


def read_start(base: Path, words: Sequence[str]) -> tuple[Pipeline, How]:
    """Returns a pipeline that was started, and how.

    Raises:
        StateError: nothing says how, or all stages are done.
    """
    record = read_json(_record(base))
    if record is None:
        raise StateError(Problem("does not say how the pipeline was started", where=str(_record(base))))
    pipeline = load_pipeline(_file(base), [*record["words"], *words], Path(record["folder"]))
    if all(is_done(pipeline, base, stage) for stage in pipeline.stages):
        what = "every stage of the pipeline is completed; there is nothing to go on with"
        raise StateError(Problem(what, where=str(base), fix=f"fullrank run {pipeline.name} for a new one"))
    return pipeline, How(**record["how"])


def train_stages(
    pipeline: Pipeline, base: Path, how: How, as_json: bool, typed: Mapping[str, Sequence[str]] | None = None, force: bool = False
) -> int:
    """Trains every stage that is not done, in order, and ends with the first that does not complete; returns its exit code, else 0."""
    told: list[dict[str, Any]] = []
    for stage in pipeline.stages:
        title = f"stage {stage.number} of {len(pipeline.stages)}, {stage.name}"
        if is_done(pipeline, base, stage):
            print(f"{title}: done, {pipeline.stage_dir(base, stage)}", file=sys.stderr)
            continue
        ended = _train(pipeline, base, stage, how, (typed or {}).get(stage.name, ()), force, title)
        told.append({"stage": stage.name} | closing_facts(ended))
        if not as_json:
            print_closing(ended)
        if ended.outcome.exit_code:
            print(f"the pipeline ended in {title}; go on with: fullrank resume {base}", file=sys.stderr)
            break
    if as_json:
        print(json.dumps({"stages": told}, indent=2))
    return next((int(facts["exit_code"]) for facts in told if facts["exit_code"]), EXIT_DONE)


def _train(pipeline: Pipeline, base: Path, stage: Stage, how: How, typed: Sequence[str], force: bool, title: str) -> Ended:
    """Starts a stage, or goes on with it."""
    run = RunDir(pipeline.stage_dir(base, stage))
    is_new = not run.resolved.is_file()
    plan: LaunchPlan
    probe: Probe
    if is_new:
        plan, probe = make_plan(stage.experiment, pipeline.started(base, stage), **asdict(how), run_dir=run.path, origins=stage.origins)
    else:
        plan, probe = plan_again(run, typed, None, how.nodes, how.processes_per_node, how.launcher, force)
        check_resumable(run, getattr(plan, "optimizer_steps", None))
    preflight(plan, probe)
    print(f"{title}: {plan_headline(plan)}\n{run.path}" + ("" if is_new else f": attempt {plan.attempt.number}"), file=sys.stderr)
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    local = BACKENDS["local"]
    return local.start(plan, probe) if is_new else local.resume(plan, probe)


def plan_pipeline(
    path: Path, words: Sequence[str], how: How, run_dir: Path | None, run_root: Path, machine: Machine | None = None
) -> list[tuple[Stage, ExperimentPlan, ExperimentProbe]]:
    """Returns the plan of every stage of a pipeline that is not started.

    Raises:
        FullrankError: with every problem of the file, or else of every stage.
    """
    pipeline = load_pipeline(path, words)
    return plan_stages(pipeline, how, new_base(pipeline, run_dir, run_root), machine)


def new_base(pipeline: Pipeline, run_dir: Path | None, run_root: Path) -> Path:
    """Returns what the run directories of a new pipeline begin with."""
    return (run_dir or run_root / pipeline.name / new_run_id()).expanduser().absolute()


def plan_stages(pipeline: Pipeline, how: How, base: Path, machine: Machine | None = None) -> list[tuple[Stage, ExperimentPlan, ExperimentProbe]]:
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
    run_dir = pipeline.stage_dir(base, stage)
    return make_plan(stage.experiment, pipeline.checked(stage), **asdict(how), run_dir=run_dir, machine=machine, origins=stage.origins)


@contextmanager
def collecting(errors: list[FullrankError], pipeline: Pipeline, stage: Stage) -> Iterator[None]:
    """Keeps a stage's error for later, under the name of the stage."""
    try:
        yield
    except FullrankError as error:
        heading = Problem(f"stage {stage.name} cannot start", str(pipeline.path), fix=f"{stage.name}.KEY=VALUE, where KEY=VALUE stands below")
        errors.append(type(error)(heading, *error.problems))


def raise_all(errors: Sequence[FullrankError]) -> None:
    """Raises one error of them all, if there are any: a ConfigError if one of them is."""
    if errors:
        kind = next((type(error) for error in errors if isinstance(error, ConfigError)), type(errors[0]))
        raise kind(*(problem for error in errors for problem in error.problems))


def is_done(pipeline: Pipeline, base: Path, stage: Stage) -> bool:
    """Returns whether a stage is completed."""
    run = RunDir(pipeline.stage_dir(base, stage))
    return run.status.is_file() and read_run(run).state == "completed"


def _file(base: Path) -> Path:
    """The pipeline file as it was when the first stage started."""
    return base.with_name(f"{base.name}.pipeline.yaml")


def _record(base: Path) -> Path:
    """What was typed beside it."""
    return base.with_name(f"{base.name}.pipeline.json")
