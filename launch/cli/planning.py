"""From what was typed to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from launch.checks.data_changes import check_data
from launch.cli import BEHIND_DASHES
from launch.cli.options import default_run_root
from launch.config.changes import PREPARED, Change, changed_keys
from launch.config.errors import ConfigError, Problem, StateError, suggest
from launch.config.experiment import dump_experiment
from launch.config.load import Origin, load_experiment, refuse_script
from launch.config.modes import PLAIN, Mode
from launch.config.new_run import new_run_id
from launch.config.resolve import resolve
from launch.config.run_dir import RunDir, read_json
from launch.config.strategy import load_strategy
from launch.launchers import LAUNCHERS, Launcher
from launch.plan import LaunchPlan, Options
from launch.plan_experiment import ExperimentPlan, plan_experiment
from launch.plan_script import ScriptPlan, plan_script
from launch.preflight import file_problems
from launch.probe import ExperimentProbe, Machine, Probe, probe, probe_experiment
from launch.script_file import read_script


@dataclass(frozen=True)
class Target:
    """What is to be launched: an experiment with its overrides, or a script with its arguments."""

    experiment: str = ""
    overrides: tuple[str, ...] = ()
    script: Path | None = None
    arguments: tuple[str, ...] = ()


def parse_target(ctx: typer.Context, experiment: str | None, overrides: Sequence[str] | None, script: Path | None) -> Target:
    """Returns what was named on the command line.

    Raises:
        ConfigError: nothing, both, words that belong to neither, or a script where the experiment stands.
    """
    own, behind = [*([experiment] if experiment else []), *(overrides or [])], ctx.meta.get(BEHIND_DASHES)
    if script is None and experiment is None:
        raise ConfigError(Problem("what is to be launched?", fix=f"fullrank {ctx.info_name} EXPERIMENT, or fullrank {ctx.info_name} --script FILE"))
    if script is None:
        refuse_script(experiment or "", ctx.info_name or "run")
        if behind:
            what = f"{' '.join(behind)!r} stands behind --, where a script's arguments stand"
            raise ConfigError(Problem(what, fix=f"fullrank {ctx.info_name} --script FILE -- ARGUMENTS; KEY=VALUE of an experiment needs no --"))
        return Target(experiment=experiment or "", overrides=tuple(overrides or ()))
    if own and ("=" in own[0] or own[0].startswith("-") or behind is not None):
        what = f"{' '.join(own)!r} beside --script: a script has no experiment whose keys could be set"
        raise ConfigError(Problem(what, fix=f"fullrank {ctx.info_name} --script {script} -- {' '.join(own)}, if the words are the script's own"))
    if own:
        what = f"an experiment ({own[0]}) and a script ({script}): only one of them can be launched"
        raise ConfigError(Problem(what, fix=f"leave one out; the script's own arguments stand behind --: --script {script} -- {' '.join(own)}"))
    return Target(script=script, arguments=tuple(behind or ()))


def plan_target(
    target: Target,
    strategy: str = "auto",
    nodes: int | None = None,
    processes_per_node: int | None = None,
    launcher: str = "direct",
    run_dir: Path | None = None,
    run_root: Path | None = None,
    mode: Mode = PLAIN,
    machine: Machine | None = None,
) -> tuple[LaunchPlan, Probe]:
    """Returns the plan behind a command line, and what the machine answered; writes nothing.

    Raises:
        ConfigError: with every problem at once.
    """
    if target.script is None:
        overrides = mode.overrides(target.overrides)
        return make_plan(target.experiment, overrides, strategy, nodes, processes_per_node, launcher, run_dir, run_root, mode=mode, machine=machine)
    return make_script_plan(
        target.script, target.arguments, Path.cwd(), strategy, nodes, processes_per_node, launcher, run_dir, run_root, mode=mode, machine=machine
    )


def make_plan(
    experiment: str,
    overrides: Sequence[str] = (),
    strategy: str = "auto",
    nodes: int | None = None,
    processes_per_node: int | None = None,
    launcher: str = "direct",
    run_dir: Path | None = None,
    run_root: Path | None = None,
    attempt: int = 1,
    mode: Mode = PLAIN,
    micro_batch_size: int | None = None,
    machine: Machine | None = None,
    origins: Mapping[str, Origin] | None = None,
) -> tuple[ExperimentPlan, ExperimentProbe]:
    """Returns the plan of an experiment, and what the machine answered; writes nothing.

    Args:
        origins: where an override stands that was not typed as it is.

    Raises:
        ConfigError: with every problem of the experiment, or of the strategy, and of the files that it names at once.
    """
    loaded = load_experiment(experiment, overrides, origins)
    run_path = _run_path(loaded.experiment.name, run_dir, run_root)
    options = Options(run_path, attempt, nodes, processes_per_node, _parse_launcher(launcher), mode, micro_batch_size)
    answers = probe_experiment(loaded.experiment, run_path, loaded.path)
    answers = replace(answers, machine=machine) if machine else answers
    try:
        return plan_experiment(loaded, load_strategy(strategy), answers, options), answers
    except ConfigError as error:
        raise ConfigError(*error.problems, *file_problems(loaded, answers)) from error


def make_script_plan(
    script: Path,
    arguments: Sequence[str],
    folder: Path,
    strategy: str = "auto",
    nodes: int | None = None,
    processes_per_node: int | None = None,
    launcher: str = "direct",
    run_dir: Path | None = None,
    run_root: Path | None = None,
    attempt: int = 1,
    mode: Mode = PLAIN,
    machine: Machine | None = None,
) -> tuple[ScriptPlan, Probe]:
    """Returns the plan of a script that runs in `folder`, and what the machine answered; writes nothing.

    Raises:
        ConfigError: there is no such script, it is not Python, or the strategy has problems.
    """
    file = read_script(script)
    run_path = _run_path(file.name, run_dir, run_root)
    options = Options(run_path, attempt, nodes, processes_per_node, _parse_launcher(launcher), mode)
    answers = probe(run_path, file.path.parent)
    answers = replace(answers, machine=machine) if machine else answers
    return plan_script(file, arguments, folder, load_strategy(strategy), answers, options), answers


def plan_again(
    run: RunDir,
    overrides: Sequence[str] = (),
    strategy: str | None = None,
    nodes: int | None = None,
    processes_per_node: int | None = None,
    launcher: str = "",
    force: bool = False,
    machine: Machine | None = None,
) -> tuple[LaunchPlan, Probe]:
    """Returns the plan of a run's next attempt, started as its newest one was but for what is given here; writes nothing.

    Args:
        force: accept changes that make it another training; they are recorded.

    Raises:
        StateError: it was never started, so nothing says how.
        ConfigError: what it is made of is no longer there, or a value may not change between attempts.
    """
    attempt = run.last_attempt()
    last: dict[str, Any] = next(filter(None, (read_json(one.plan) for one in run.attempts_backwards())), {})
    counts: dict[str, Any] = {"nodes": nodes, "processes_per_node": processes_per_node}
    if strategy is None:
        strategy = last_strategy(run)
        counts = {name: count or last.get(name) for name, count in counts.items()}
    same: dict[str, Any] = counts | {
        "launcher": launcher or last.get("launcher") or "direct",
        "run_dir": run.path,
        "attempt": attempt.number + 1 if attempt else 1,
        "machine": machine,
        "mode": Mode(overfits_batch=bool((last.get("mode") or {}).get("overfits_batch"))),
    }
    if "script" in last:
        if overrides or force:
            what = f"{' '.join(overrides) or '--force'}: this run is of a script, which has no experiment whose keys could be set"
            raise ConfigError(Problem(what, where=str(run.path), fix=f"fullrank resume {run.path}"))
        folder = Path(last["folder"])
        if not folder.is_dir():
            what = f"the folder that {Path(last['script']).name} ran in is gone"
            raise ConfigError(Problem(what, where=str(folder), fix="make it again, or start a new run"))
        return make_script_plan(Path(last["script"]), last["arguments"], folder, strategy, **same)
    if not run.resolved.is_file():
        raise StateError(Problem("does not say what was started in it: neither a script's plan.json nor resolved.yaml is there", where=str(run.path)))
    decided = ((read_json(attempt.start) if attempt else None) or {}).get("micro_batch_size") or last.get("micro_batch_size")
    plan, answers = make_plan(str(run.resolved), overrides, strategy, **same, micro_batch_size=decided)
    earlier = tuple(Change(**change) for change in last.get("forced_changes", ()))
    plan = with_changes_checked(plan, dump_experiment(resolve(load_experiment(str(run.resolved)))), earlier, force)
    of_data = check_data(plan, answers, earlier, force)
    return replace(plan, forced_changes=(*(change for change in plan.forced_changes if change.key != PREPARED), *of_data)), answers


def last_strategy(run: RunDir) -> str:
    """Returns the file, or the name, of the strategy that a run trained under last: as the launcher planned it, else as the ranks were told.

    Raises:
        ConfigError: another launcher told the ranks of it without a file, or the file is gone.
    """
    for attempt in run.attempts_backwards():
        plan, start = read_json(attempt.plan) or {}, read_json(attempt.start) or {}
        file = (plan or start).get("strategy_file")
        if file and Path(file).is_file():
            return str(file)
        if plan:
            return str(plan.get("strategy") or "auto")
        if start.get("engine") in ("fsdp2", "deepspeed"):
            gone = f", whose file {file} is gone" if file else ", of which their launcher told them without a file"
            what = f"the ranks of attempt {attempt.number} trained under {start['engine']}{gone}"
            raise ConfigError(Problem(what, where=str(run.path), fix=f"fullrank resume {run.path} --strategy NAME|FILE"))
        if start:
            break
    return "auto"


def with_changes_checked(plan: ExperimentPlan, before: Mapping[str, Any], earlier: Sequence[Change], force: bool) -> ExperimentPlan:
    """Returns the plan with the changes that a person forces, now or in an earlier attempt.

    Args:
        before: the run's experiment so far.

    Raises:
        ConfigError: names every value that may not change, as it was and as it would be.
    """
    changes = list(changed_keys(before, dump_experiment(plan.experiment)))
    if changes and not force:
        raise ConfigError(
            *(
                plan.loaded.problem(
                    change.key,
                    f"was {change.before!r} in this run and would be {change.now!r}: going on would be another training",
                    fix="a new run for the new value (fullrank run); or --force, which is recorded",
                )
                for change in changes
            )
        )
    now = {change.key for change in changes}
    durations = [values["train"]["duration"] for values in (before, dump_experiment(plan.experiment))]
    if durations[0] != durations[1]:
        note = f"train.duration was {durations[0]} and is {durations[1]}: the learning rate follows the new length from here on"
        plan = replace(plan, warnings=(*plan.warnings, note))
    return replace(plan, forced_changes=(*(change for change in earlier if change.key not in now), *changes))


def _run_path(name: str, run_dir: Path | None, run_root: Path | None) -> Path:
    return (run_dir or (run_root or default_run_root()) / name / new_run_id()).expanduser().absolute()


def _parse_launcher(name: str) -> Launcher:
    if name not in LAUNCHERS:
        near = suggest(name, LAUNCHERS)
        what = f"{name!r} is not a launcher" + (f"; did you mean {near!r}?" if near else "")
        raise ConfigError(Problem(what, key="--launcher", allowed=", ".join(LAUNCHERS)))
    return name
