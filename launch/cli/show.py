"""A plan and a run in words, for a person."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from launch.cli.tables import table
from launch.config.errors import EXIT_DONE, FullrankError
from launch.config.load import Origin
from launch.config.tasks.language_modelling import LanguageModelling
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.preflight import preflight
from launch.probe import Probe
from launch.render import describe_plan, launch_argv, launch_environment, render_files
from launch.sizes.memory_plan import memory_rows


def print_plan(launch_plan: LaunchPlan, probe: Probe, as_json: bool) -> int:
    """Prints a plan to stdout, and what would keep it from starting to stderr; returns the exit code of the check, 0 if it would start."""
    if as_json:
        print(json.dumps(plan_facts(launch_plan, probe), indent=2, ensure_ascii=False))
    else:
        print(plan_text(launch_plan, render_files(launch_plan, probe)))
    return say_problems(launch_plan, probe)


def plan_facts(launch_plan: LaunchPlan, probe: Probe) -> dict[str, Any]:
    """Returns a plan for programs: plan.json, and the files that would be written."""
    return describe_plan(launch_plan) | {"files": render_files(launch_plan, probe)}


def say_problems(launch_plan: LaunchPlan, probe: Probe) -> int:
    """Prints to stderr what would keep a plan from starting; returns the exit code of the check, 0 if it would start."""
    try:
        preflight(launch_plan, probe)
    except FullrankError as error:
        for problem in error.problems:
            print(f"would not start: {problem}", file=sys.stderr)
        return error.exit_code
    return EXIT_DONE


def plan_headline(plan: LaunchPlan) -> str:
    """Returns one line: what is trained, where, and with how many processes."""
    processes = f"{plan.world_size} process{'es' if plan.world_size > 1 else ''}"
    device = "CPU" if plan.device == "cpu" else "GPU"
    head = f"{plan.name}: {'debug, ' if plan.mode.is_debug else ''}{processes} on the {device}, {plan.precision}"
    if not isinstance(plan, ExperimentPlan):
        return head
    steps = f"{plan.optimizer_steps} optimizer steps" if plan.optimizer_steps is not None else str(plan.experiment.train.duration)
    return f"{head}, {steps} in batches of {plan.batches.global_batch_size}"


def plan_text(plan: LaunchPlan, files: Mapping[str, str]) -> str:
    """Returns the whole plan: what was set and where, the arithmetic, the command, the files."""
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in launch_environment(plan).items())
    sections = [
        plan_headline(plan),
        _section(
            "set" + (f" in {plan.loaded.path}" if isinstance(plan, ExperimentPlan) else ""),
            _values(plan, ("experiment", "pipeline", "override", "environment")),
        ),
        _section("derived", _values(plan, ("derived", "strategy"))),
        _section("batch", _batch_lines(plan) if isinstance(plan, ExperimentPlan) else []),
        _section("memory a rank", _memory_lines(plan) if isinstance(plan, ExperimentPlan) else []),
        _section("command", [variables, shlex.join(launch_argv(plan))]),
        _section("files", [f"{plan.run.path}/", *(f"  {name}" for name in sorted(files))]),
        _section("warnings", list(plan.warnings)),
    ]
    return "\n\n".join(section for section in sections if section)


def _batch_lines(plan: ExperimentPlan) -> list[str]:
    batches = plan.batches
    processes = f"{batches.world_size} process{'es' if batches.world_size > 1 else ''}"
    product = f"{batches.micro_batch_size} a process x {processes} x {batches.gradient_accumulation_steps} accumulated"
    steps = f"{plan.optimizer_steps}" if plan.optimizer_steps is not None else f"unknown: {plan.optimizer_steps_reason}"
    task = plan.experiment.task
    tokens = f"{batches.global_batch_size * task.block_size:,} tokens a step at most: " if isinstance(task, LanguageModelling) else ""
    kind = f"{tokens}{batches.global_batch_size} {'rows' if tokens else 'samples'} a step"
    return [f"{kind} = {product}", f"optimizer steps: {steps}"]


def _memory_lines(plan: ExperimentPlan) -> list[str]:
    return [*table(memory_rows(plan.memory)), *plan.memory.notes]


def _values(plan: LaunchPlan, kinds: tuple[str, ...]) -> list[str]:
    """Returns key, value and origin of the values from these kinds of places; the experiment's own file is named once, above."""
    own_line = f"experiment: {plan.loaded.path}:" if isinstance(plan, ExperimentPlan) else "\n"
    rows = [(key, _shown(value.value), _from(key, value.origin)) for key, value in plan.values.items() if value.origin.kind in kinds]
    return table([(key, value, origin.replace(own_line, "line ")) for key, value, origin in rows])


def _from(key: str, origin: Origin) -> str:
    """Returns where a value came from, without the value, which stands beside it."""
    name = (origin.detail or "").partition("=")[0]
    if origin.kind != "override" or name == origin.detail:
        return str(origin)
    return "override" if name == key else f"override: {name}"


def _shown(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)]) if lines else ""
