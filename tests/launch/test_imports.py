"""The launcher stays light: in a fresh process, no verb loads the training's libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "accelerate", "transformers", "datasets", "wandb", "deepspeed", "matplotlib")
VERBS = {
    "help": ["--help"],
    "plan": ["plan", "./tiny.yaml", "--json"],
    "run": ["run", "./tiny.yaml", "--dry-run"],
    "check": ["check"],
    "check of an experiment": ["check", "./tiny.yaml"],
    "status": ["status"],
    "logs": ["logs"],
    "report": ["report"],
    "resume": ["resume"],
    "verify": ["verify", "./tiny.yaml", "--steps", "4", "--stop-at", "9"],
    "sync": ["sync"],
    "compare": ["compare", "a", "b"],
}
SCRIPT = f"""
import sys
from launch.cli import main
try:
    main()
except SystemExit:
    pass
print(sorted(set({HEAVY}) & set(sys.modules)), 'pydantic' in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("verb", VERBS)
def test_verb_loads_no_training_library(verb, experiment_file):
    checkout = str(Path(__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *VERBS[verb]],
        cwd=experiment_file.parent,
        env={"PYTHONPATH": checkout, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert ended.stderr.splitlines()[-1] == f"[] {verb != 'help'}", ended.stderr


def test_no_module_of_the_launcher_loads_a_training_library():
    checkout = Path(__file__).parents[2]
    modules = [".".join(path.relative_to(checkout).with_suffix("").parts) for path in (checkout / "launch").rglob("*.py") if path.stem != "__main__"]
    script = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
    script += f"print(sorted(set({HEAVY}) & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=checkout, env={"PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
