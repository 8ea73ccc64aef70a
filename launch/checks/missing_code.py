"""Whether model.class and task.file are there, as far as reading the files tells: nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from launch.config.errors import Problem, suggest
from launch.config.experiment import Experiment
from launch.config.own_code import code_folder, own_modules


def find_missing_code(experiment: Experiment, experiment_file: Path) -> list[Problem]:
    """Returns a problem for each module or name that is certainly not there; what only running the code tells is left to the ranks."""
    problems = []
    for key, top in own_modules(experiment).items():
        folder = code_folder(experiment_file, top)
        module, _, name = (experiment.model.class_ or "").partition(":") if key == "model.class" else (top, "", "")
        names = [name] if name else ["Options", "build_task"]
        if folder is not None:
            problems += _problems_of_file(folder, module, names, key)
        elif key == "task.file" or importlib.util.find_spec(top) is None:
            there = ", ".join(sorted(path.stem for path in experiment_file.absolute().parent.glob("*.py"))) or "none"
            what = f"there is no {top}.py in {experiment_file.absolute().parent}"
            allowed = f"a module of that folder ({there})" + (", or an installed one" if key == "model.class" else "")
            problems.append(Problem(what, key=key, allowed=allowed))
    return problems


def _problems_of_file(folder: Path, module: str, names: Iterable[str], key: str) -> list[Problem]:
    place = folder.joinpath(*module.split("."))
    path = next((path for path in (place.with_name(f"{place.name}.py"), place / "__init__.py") if path.is_file()), None)
    if path is None:
        return [Problem(f"there is no module {module} in {folder}", key=key)]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        return [Problem(f"is no Python: {error}", f"{path}:{getattr(error, 'lineno', None) or 1}", key)]
    defined = set(_names(tree.body))
    if defined & {"*", "__getattr__"}:
        return []
    problems = []
    for name in names:
        if name not in defined:
            near = suggest(name, defined)
            what = f"{module} has no {name}" + (f"; did you mean {near!r}?" if near else "")
            allowed = ", ".join(sorted(other for other in defined if not other.startswith("_"))) or "nothing is defined there"
            problems.append(Problem(what, str(path), key, allowed=allowed))
    return problems


def _names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yields what a module's statements bind, in branches too; `*` where an import brings names that are not written."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        else:
            yield from (node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
            for block in ("body", "orelse", "finalbody"):
                yield from _names(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _names(handler.body)
