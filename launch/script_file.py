"""What can be known of somebody's training script by reading it; it is not run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import MOST_NAME_CHARACTERS

_JOINING = frozenset(
    "accelerate colossalai composer deepspeed fairscale horovod ignite lightning megatron mpi4py pytorch_lightning ray transformers".split()
)
"""Packages that join the processes of a training, told by the launcher's variables."""

_MENTIONS = frozenset(("WORLD_SIZE", "RANK", "LOCAL_RANK"))
_MOST_MODULES = 200
"""Of the script's own; beyond that the reading ends."""


@dataclass(frozen=True)
class ScriptFile:
    """A script, read.

    Args:
        sources: the script and the modules beside it that it imports, and theirs.
        joins_processes: whether it, or a module of its own, uses something that joins processes, or looks at its rank itself.
    """

    path: Path
    sources: tuple[Path, ...]
    joins_processes: bool

    @property
    def name(self) -> str:
        """The file's name without .py, made one that an experiment could have: a folder under the run root, never outside it."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.path.stem).lstrip("._-")[:MOST_NAME_CHARACTERS].rstrip("-") or "script"


def read_script(path: Path) -> ScriptFile:
    """Returns what a Python script says.

    Raises:
        ConfigError: it is not there, cannot be read, or is not Python.
    """
    path = path.expanduser().absolute()
    if not path.is_file():
        near = sorted(p.name for p in (path if path.is_dir() else path.parent).glob("*.py"))[:8]
        what = "is a folder, not a script" if path.is_dir() else "there is no such script"
        raise ConfigError(Problem(what, where=str(path), key="--script", allowed=f"there: {', '.join(near)}" if near else None, fix="check the path"))
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(Problem("is not a Python script", where=str(path), key="--script", fix=f"fullrank run {path} if it is an experiment"))
    try:
        trees = dict(_own_trees(path))
    except SyntaxError as error:
        fix = "mend the line; a shell script starts its python itself: name that python file"
        raise ConfigError(
            Problem(f"is not Python: {error.msg}", where=f"{path}:{error.lineno}" if error.lineno else str(path), key="--script", fix=fix)
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(Problem(f"cannot be read: {error}", where=str(path), key="--script")) from error
    return ScriptFile(path, tuple(trees), joins_processes=any(_joins(node) for tree in trees.values() for node in ast.walk(tree)))


def _own_trees(script: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Yields the script and the modules beside it that it imports, and theirs."""
    waiting, seen = [script], {script}
    while waiting and len(seen) < _MOST_MODULES:
        path = waiting.pop()
        tree = _parse(path, must_be_python=path == script)
        if tree is None:
            continue
        yield path, tree
        for folder, name in _imported(tree, path.parent, script.parent):
            for file in _files_of(name, folder):
                if file not in seen and file.is_file():
                    seen.add(file)
                    waiting.append(file)


def _files_of(module: str, folder: Path) -> Iterator[Path]:
    """Yields where a module, and the packages around it, would lie."""
    place = folder
    for part in module.split("."):
        place = place / part
        yield place.with_suffix(".py")
        yield place / "__init__.py"


def _parse(path: Path, must_be_python: bool) -> ast.Module | None:
    """Python itself says what is wrong with a module when it comes to it; maybe it never does."""
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, OSError, ValueError):
        if must_be_python:
            raise
        return None


def _imported(tree: ast.Module, own_folder: Path, first_on_path: Path) -> Iterator[tuple[Path, str]]:
    """Yields (folder, dotted name) of what a module imports: relative to its own folder, or to the first one on the path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((first_on_path, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = [own_folder, *own_folder.parents][min(node.level - 1, len(own_folder.parents))] if node.level else first_on_path
            yield from ((folder, ".".join(filter(None, (node.module, alias.name)))) for alias in node.names)


def _joins(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(_is_joining(alias.name) for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
        return any(_is_joining(f"{node.module}.{alias.name}") for alias in node.names)
    if isinstance(node, ast.Attribute):
        return node.attr == "distributed" and isinstance(node.value, ast.Name) and node.value.id == "torch"
    return isinstance(node, ast.Constant) and node.value in _MENTIONS


def _is_joining(module: str) -> bool:
    return module.split(".")[0] in _JOINING or f"{module}.".startswith("torch.distributed.")
