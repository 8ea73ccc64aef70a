"""A person's own model class and task file: imported from beside the experiment, checked, or refused in one message."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import nn

from launch.config.errors import ConfigError, Problem, suggest
from launch.config.experiment import Experiment
from launch.config.own_code import code_folder, copy_files, find_code, hash_code, own_modules, with_options
from launch.config.sources import OwnClass
from launch.config.tasks import OwnTask, TaskSection


def use_own_code(experiment: Experiment, experiment_file: Path) -> None:
    """Makes the experiment's own modules importable here and in the data workers: from its folder, last on the path, never from elsewhere.

    Raises:
        ConfigError: a module is not there, or has the name of an installed one.
    """
    for key, module in own_modules(experiment).items():
        folder = code_folder(experiment_file, module)
        if folder is not None:
            _add(folder, module, key)
        elif key == "task.file" or importlib.util.find_spec(module) is None:
            there = ", ".join(sorted(path.stem for path in experiment_file.absolute().parent.glob("*.py"))) or "none"
            what = f"there is no {module}.py in {experiment_file.absolute().parent}"
            raise ConfigError(Problem(what, key=key, allowed=f"a module of that folder ({there}), or for a class an installed one"))


def build_own_model(source: OwnClass, kwargs: Mapping[str, Any], folder: Path | None = None) -> nn.Module:
    """Returns NAME(**kwargs).

    Args:
        folder: where the module lies, if it may not be importable yet.

    Raises:
        ConfigError: the module or the class is not there, the arguments do not fit, building it fails, or it is no nn.Module.
    """
    if folder is not None and code_folder(folder / "x", source.module.partition(".")[0]):
        _add(folder.absolute(), source.module.partition(".")[0], "model.class", is_runs_copy=True)
    spelled = f"{source.module}:{source.name}"
    kind = _attribute(_import(source.module, "model.class"), source.name, "model.class")
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        what = f"{spelled} is {f'the class {kind.__name__}' if inspect.isclass(kind) else f'a {type(kind).__name__}'}, no torch.nn.Module"
        raise ConfigError(Problem(what, key="model.class"))
    try:
        inspect.signature(kind).bind(**kwargs)
    except TypeError as error:
        fix = "model.kwargs.NAME=VALUE"
        raise ConfigError(
            Problem(f"{spelled} cannot be built: {error}", key="model.kwargs", allowed=str(inspect.signature(kind)), fix=fix)
        ) from error
    return _called(lambda: kind(**kwargs), f"building {spelled}", "model.class")


def build_own_task(experiment: Experiment) -> Any:
    """Returns what build_task of the task's file makes of the experiment, whose `task` is then the file's Options.

    Raises:
        ConfigError: the file lacks one of the two, the options do not fit, or the evaluation's metric is none of the task's.
    """
    task = experiment.task
    assert isinstance(task, OwnTask)
    module = _import(task.file.removesuffix(".py"), "task.file")
    assert module.__file__ is not None
    seen = with_options(experiment, read_options(module, task), hash_code(Path(module.__file__).parent, module.__name__))
    built = _called(lambda: module.build_task(seen), f"build_task of {task.file}", "task.file")
    metrics = [*built.build_metrics().keys(), "loss"]
    if experiment.evaluate.metric not in metrics:
        what = f"{experiment.evaluate.metric!r} is no metric of {task.file}"
        raise ConfigError(Problem(what, key="evaluate.metric", allowed=", ".join(metrics)))
    return built


def own_usage(experiment: Experiment) -> dict[str, list[str]]:
    """Returns {"usage": lines} where a task file's Options are those of a task that is there already: its model is used as that one's."""
    task = experiment.task
    if not isinstance(task, OwnTask):
        return {}
    options = read_options(_import(task.file.removesuffix(".py"), "task.file"), task)
    return {"usage": list(options.usage())} if isinstance(options, TaskSection) else {}


def read_options(module: ModuleType, task: OwnTask) -> BaseModel:
    """Returns the task file's Options made of task.options.

    Raises:
        ConfigError: the file has no Options or no build_task, or a value does not fit.
    """
    kind, build = _attribute(module, "Options", "task.file"), _attribute(module, "build_task", "task.file")
    if not (inspect.isclass(kind) and issubclass(kind, BaseModel)):
        raise ConfigError(Problem("Options is no pydantic model", module.__file__, "task.file", fix="class Options(pydantic.BaseModel): ..."))
    if not callable(build):
        raise ConfigError(Problem("build_task is no function", module.__file__, "task.file", fix="def build_task(experiment): ..."))
    try:
        return kind.model_validate(task.options)
    except ValidationError as error:
        raise ConfigError(*(_option_problem(dict(detail), kind) for detail in error.errors())) from error


def import_own_module(module: str, key: str) -> ModuleType:
    """Returns a module that use_own_code made importable.

    Raises:
        ConfigError: importing it fails.
    """
    return _import(module, key)


def copy_own_code(module: str, target: Path) -> None:
    """Copies the files of a module of one's own, so that saved weights come with the code they need; an installed one stays where it is."""
    top = module.partition(".")[0]
    folder = next((Path(place) for place in _FOLDERS if code_folder(Path(place) / "x", top) == Path(place)), None)
    if folder is not None:
        copy_files(folder, find_code(folder, top), target)


_FOLDERS: list[str] = []
"""Folders of one's own code that stand on sys.path."""


def _add(folder: Path, module: str, key: str, is_runs_copy: bool = False) -> None:
    """Puts a folder on the path, after making sure that Python takes each file that is needed from there, or one that is the same.

    Args:
        is_runs_copy: what saved weights came with: it goes first, for the files it was copied from may lie beside the script that loads it.
    """
    if str(folder) in _FOLDERS:
        return
    files = find_code(folder, module)
    beside_script = next(place for place in sys.path if place not in _FOLDERS)
    for name in sorted({path.parts[0].removesuffix(".py") for path in files}):
        there = _folder_python_knows(name)
        if there is None or all(_has_same(there, folder, path) for path in files if path.parts[0].removesuffix(".py") == name):
            continue
        if there not in {Path.cwd(), *(Path(place).resolve() for place in (beside_script, *_FOLDERS))}:
            what = f"{name} in {folder} has the name of an installed module, which Python would take instead"
            raise ConfigError(Problem(what, key=key, fix="another name for the file"))
        if not is_runs_copy or name in sys.modules:
            what = f"{name} in {folder} is another file than the one in {there}, which Python would take instead"
            raise ConfigError(Problem(what, key=key, fix="a new Python process" if is_runs_copy else "another name for one of them"))
    _FOLDERS.append(str(folder))
    sys.path.insert(0 if is_runs_copy else len(sys.path), str(folder))


def _folder_python_knows(name: str) -> Path | None:
    """Returns the folder that Python has or would take a top-level module from; `/` for one that is in no folder, None: there is no such module."""
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        return None
    spec = sys.modules[name].__spec__ if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or not spec.has_location or spec.origin is None:
        return Path("/")
    file = Path(spec.origin).resolve()
    return file.parent.parent if spec.submodule_search_locations else file.parent


def _has_same(there: Path, folder: Path, path: Path) -> bool:
    return (there / path).is_file() and (there / path).read_bytes() == (folder / path).read_bytes()


def _import(module: str, key: str) -> ModuleType:
    return _called(lambda: importlib.import_module(module), f"importing {module}", key)


def _called(call: Callable[[], Any], what: str, key: str) -> Any:
    """Returns what a call into a person's code gives; what it raises becomes one problem that names the line of that code."""
    try:
        return call()
    except ConfigError:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if any(frame.filename.startswith(place) for place in _FOLDERS)]
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
        if isinstance(error, SyntaxError) and error.filename:
            where = f"{error.filename}:{error.lineno}"
        raise ConfigError(Problem(f"{what} failed: {type(error).__name__}: {error}", where, key)) from error


def _attribute(module: ModuleType, name: str, key: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    names = [other for other, value in vars(module).items() if not other.startswith("_") and getattr(value, "__module__", None) == module.__name__]
    near = suggest(name, names)
    what = f"{module.__name__} has no {name}" + (f"; did you mean {near!r}?" if near else "")
    raise ConfigError(Problem(what, module.__file__, key, allowed=", ".join(names) or "nothing is defined there"))


def _option_problem(detail: dict[str, Any], kind: type[BaseModel]) -> Problem:
    key = ".".join(["task.options", *map(str, detail["loc"])])
    if detail["type"] == "missing":
        return Problem("the key is missing", key=key)
    if detail["type"] == "extra_forbidden":
        near = suggest(str(detail["loc"][-1]), kind.model_fields)
        return Problem("unknown key" + (f"; did you mean {near!r}?" if near else ""), key=key, allowed=", ".join(kind.model_fields))
    return Problem(f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {detail['input']!r}", key=key)
