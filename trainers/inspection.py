"""Imports an experiment's own class and task file and says as JSON what is wrong with them: for `fullrank check`, which never loads torch.

python -P -m trainers.inspection --config EXPERIMENT.yaml [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from launch.config.errors import FullrankError, Problem
from launch.config.experiment import Experiment
from launch.config.load import load_experiment
from launch.config.resolve import resolve
from launch.config.sources import OwnClass, parse_model
from launch.config.tasks import OwnTask
from trainers.own_code import build_own_model, import_own_module, read_options, use_own_code


def main() -> int:
    """Prints {"problems": [...], "facts": {...}}; problems are launch.config.errors.Problem as mappings."""
    parser = argparse.ArgumentParser(prog="trainers.inspection", description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_intermixed_args()
    facts: dict[str, Any] = {}
    problems: list[Problem] = []
    try:
        loaded = load_experiment(options.config, options.overrides)
        experiment = resolve(loaded)
        use_own_code(experiment, loaded.path)
    except FullrankError as error:
        problems += error.problems
    else:
        for inspect in (inspect_class, inspect_task):
            try:
                facts |= inspect(experiment)
            except FullrankError as error:
                problems += error.problems
    print(json.dumps({"problems": [dataclasses.asdict(problem) for problem in problems], "facts": facts}))
    return 0


def inspect_class(experiment: Experiment) -> dict[str, Any]:
    """Returns what the model's class builds.

    Raises:
        ConfigError: it cannot be imported or built, or is no nn.Module.
    """
    source = parse_model(experiment.model)
    if not isinstance(source, OwnClass):
        return {}
    network = build_own_model(source, experiment.model.kwargs)
    return {"model.class": f"{source.module}:{source.name}", "parameters": sum(parameter.numel() for parameter in network.parameters())}


def inspect_task(experiment: Experiment) -> dict[str, Any]:
    """Returns the options of the task's file.

    Raises:
        ConfigError: it cannot be imported, lacks Options or build_task, or its options do not fit.
    """
    task = experiment.task
    if not isinstance(task, OwnTask):
        return {}
    options = read_options(import_own_module(task.file.removesuffix(".py"), "task.file"), task)
    return {"task.file": task.file, "options": options.model_dump(mode="json")}


if __name__ == "__main__":
    sys.exit(main())
