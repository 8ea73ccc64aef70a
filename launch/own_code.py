"""Asks a process that may load torch what is wrong with an experiment's own Python files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from launch.config.errors import Problem
from launch.config.experiment import Experiment
from launch.config.own_code import own_modules

TIMEOUT_S = 120.0
"""Importing torch takes seconds on a warm disk, and a minute on a cold network one."""


def inspect_own_code(experiment: Experiment, config: Path, overrides: Sequence[str], python: str) -> list[Problem]:
    """Returns what keeps model.class or task.file from working; nothing is started where neither is set.

    Args:
        config: the experiment file; its folder is where the modules lie.
        python: the interpreter that the ranks will use.
    """
    if not own_modules(experiment):
        return []
    argv = [python, "-P", "-m", "trainers.inspection", "--config", str(config), *overrides]
    path = os.pathsep.join(part for part in (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")) if part)
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, env=os.environ | {"PYTHONPATH": path})
    except subprocess.TimeoutExpired:
        return [Problem(f"importing it took longer than {TIMEOUT_S:.0f} s", str(config), ", ".join(own_modules(experiment)))]
    try:
        answer = json.loads(ended.stdout.splitlines()[-1])  # what the person's own code prints comes before
    except (IndexError, ValueError):
        last = next(iter(ended.stderr.strip().splitlines()[::-1]), f"exit code {ended.returncode}")
        return [Problem(f"importing it failed: {last}", str(config), ", ".join(own_modules(experiment)))]
    return [Problem(**problem) for problem in answer["problems"]]
