"""Python files of one's own beside an experiment: found by the imports they write, never by running them."""

from __future__ import annotations

import ast
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.config.experiment import Experiment

CODE_FOLDER = "code"
"""Where a run keeps its own copy, beside its resolved.yaml."""


class OwnTaskExperiment(Experiment):
    """An experiment as build_task of a task file gets it: `task` holds the file's own Options."""

    task: Any
    task_code: str
    """Changes with the code that prepares the data; see hash_code."""


def with_options(experiment: Experiment, options: Any, task_code: str) -> OwnTaskExperiment:
    """Returns the experiment that build_task gets."""
    values = {name: getattr(experiment, name) for name in Experiment.model_fields}
    return OwnTaskExperiment.model_construct(**values | {"task": options, "task_code": task_code})


def own_modules(experiment: Experiment) -> dict[str, str]:
    """Returns key -> top-level module, for what the experiment takes from Python files: model.class and task.file."""
    modules = {}
    if experiment.model.class_ is not None:
        modules["model.class"] = experiment.model.class_.partition(":")[0].partition(".")[0]
    if experiment.task.kind == "own":
        modules["task.file"] = experiment.task.file.removesuffix(".py")
    return modules


def code_folder(experiment_file: Path, module: str) -> Path | None:
    """Returns the folder that holds a top-level module: the experiment's own, or `code` beside a run's resolved.yaml; None: neither."""
    folder = experiment_file.absolute().parent
    for place in (folder, folder / CODE_FOLDER):
        if (place / f"{module}.py").is_file() or (place / module / "__init__.py").is_file():
            return place
    return None


def find_code(folder: Path, module: str) -> list[Path]:
    """Returns the Python files of a module and of everything it imports from the same folder, relative to it, sorted."""
    found: set[Path] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        package = folder / name
        files = sorted(package.rglob("*.py")) if (package / "__init__.py").is_file() else [folder / f"{name}.py"]
        for file in files:
            path = file.relative_to(folder)
            if file.is_file() and path not in found:
                found.add(path)
                todo += _imported(file)
    return sorted(found)


def hash_code(folder: Path, module: str) -> str:
    """Returns a hash of the names and the contents of all files of find_code."""
    digest = hashlib.sha256()
    for path in find_code(folder, module):
        digest.update(f"{path.as_posix()} {hashlib.sha256((folder / path).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def copy_code(experiment: Experiment, experiment_file: Path, target: Path) -> None:
    """Copies the experiment's own modules into a folder, so that a run keeps the code it was started with."""
    for module in own_modules(experiment).values():
        folder = code_folder(experiment_file, module)
        if folder is not None:
            copy_files(folder, find_code(folder, module), target)


def copy_files(folder: Path, files: list[Path], target: Path) -> None:
    """Copies files to the same places under another folder; a folder onto itself stays as it is."""
    for path in files if folder.resolve() != target.resolve() else []:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target / path)


def _imported(file: Path) -> Iterator[str]:
    """Yields the top-level names that a file imports; none of a file that is no Python (importing it will say so)."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
