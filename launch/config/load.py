"""Reads experiment files and KEY=VALUE overrides into validated models, keeping the place of every value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from launch.config.errors import ConfigError, Problem, suggest
from launch.config.experiment import NAME_IN_WORDS, NAME_PATTERN, Experiment
from launch.config.known_keys import blocks_of, fields_of, suggest_keys
from launch.config.yaml_files import Document, KeyPath, dotted, load_yaml, parse_scalar, shown

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Origin:
    """Where a value came from: `default`, `override`, `derived`, or a file with its line (`experiment`, `pipeline`)."""

    kind: str
    detail: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind

    @property
    def place(self) -> str | None:
        """Where it stands, as a message says it: what was typed in quotes, a file with its line."""
        return shown(self.detail, 200) if self.kind == "override" else self.detail


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment as loaded, with the origin of every leaf value under its dotted key."""

    experiment: Experiment
    origins: dict[str, Origin]
    overrides: tuple[str, ...]
    path: Path
    text: str

    def problem(self, key: str, what: str, allowed: str | None = None, fix: str | None = None) -> Problem:
        """Returns a Problem at the place where `key` was set; a mapping is where the first of its keys is."""
        origin = self.origins.get(key) or next((one for name, one in self.origins.items() if name.startswith(f"{key}.")), None)
        return Problem(what, origin.detail if origin else str(self.path), key, allowed, fix)


def load_experiment(name_or_path: str, overrides: Sequence[str] = (), origins: Mapping[str, Origin] | None = None) -> LoadedExperiment:
    """Returns the validated experiment behind a shipped name or a path.

    Args:
        origins: where an override stands that was not typed as it is: in a file, or behind the name of a stage.

    Raises:
        ConfigError: with every problem of the file and of the overrides at once.
    """
    path = find_shipped(name_or_path, "experiments")
    document = load_yaml(path)
    if "stages" in document.values:
        what, fix = (
            "is a pipeline of several experiments: run, submit, plan, check, fetch and resume take it",
            f"fullrank plan {name_or_path} checks every stage; or take one of its experiments",
        )
        raise ConfigError(Problem(what, where=str(path), fix=fix))
    values, sources, problems = _apply_overrides(document, overrides, origins or {})
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        problems += [_problem(detail, Experiment, document, sources) for detail in error.errors()]
    if problems:
        raise ConfigError(*problems)
    of_keys = {key: _origin(key, document, sources) for key in flatten(experiment.model_dump(by_alias=True))}
    return LoadedExperiment(experiment, of_keys, tuple(overrides), path, path.read_text(encoding="utf-8"))


def raw_value(name_or_path: str, overrides: Sequence[str], key: str) -> object:
    """Returns a value of an experiment as it is written, whatever is wrong with the others; None if it has none.

    Raises:
        ConfigError: there is no such file, or it is no YAML.
    """
    values, _, _ = _apply_overrides(load_yaml(find_shipped(name_or_path, "experiments")), overrides, {})
    value: object = _value_at(values, tuple(key.split(".")))
    return value


def load_file(path: Path, model: type[M]) -> tuple[M, Document]:
    """Returns the validated model behind a YAML file, and the file with its lines.

    Raises:
        ConfigError: with every problem of the file at once.
    """
    document = load_yaml(path)
    try:
        return model.model_validate(document.values), document
    except ValidationError as error:
        raise ConfigError(*(_problem(detail, model, document, {}) for detail in error.errors())) from error


def find_shipped(name_or_path: str, kind: str) -> Path:
    """Returns the file behind a shipped name (bare) or a path (with a `/`, or ending in .yaml).

    Raises:
        ConfigError: no such file (names the nearest shipped one), or a script where an experiment is named.
    """
    if kind == "experiments":
        refuse_script(name_or_path)
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml", ".json")):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            what = "is a folder, not a file" if path.is_dir() else "no such file"
            raise ConfigError(Problem(what, where=str(path), fix="check the path; a bare name means a shipped file"))
        return path
    folder = shipped_configs() / kind
    path = folder / f"{name_or_path}.yaml"
    pipeline = shipped_configs() / "pipelines" / path.name
    if kind == "experiments" and pipeline.is_file():
        return pipeline
    if not path.is_file():
        folders = [folder, pipeline.parent] if kind == "experiments" else [folder]
        names = sorted(p.stem for one in folders for p in one.glob("*.yaml"))
        near = suggest(name_or_path, names)
        what = f"there is no shipped {kind[:-1] if kind.endswith('s') else 'strategy'} {name_or_path!r}" + (
            f"; did you mean {near!r}?" if near else ""
        )
        raise ConfigError(Problem(what, allowed=", ".join(names) or "none", fix=f"a path for a file of your own: ./{name_or_path}.yaml"))
    return path


def refuse_script(name: str, verb: str = "run") -> None:
    """Refuses a script where an experiment is named.

    Raises:
        ConfigError: says how `verb` takes a script.
    """
    if name.endswith(".py"):
        raise ConfigError(Problem("is a Python script, not an experiment", where=name, fix=f"fullrank {verb} --script {name}"))


def shipped_configs() -> Path:
    """Returns the folder of shipped configuration files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {dotted key: leaf value}; lists are leaves, empty mappings too."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _apply_overrides(
    document: Document, overrides: Sequence[str], origins: Mapping[str, Origin]
) -> tuple[dict[str, Any], dict[KeyPath, Origin], list[Problem]]:
    """Returns the document's values with the overrides set, where the override behind each key stands, and what is wrong with them."""
    values: dict[str, Any] = _copied(document.values)
    sources: dict[KeyPath, Origin] = {}
    problems: list[Problem] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        key = tuple(name.split("."))
        origin = origins.get(override, Origin("override", override))
        if not equals or not all(key):
            problems.append(Problem("is not of the form KEY=VALUE", where=origin.place, fix="e.g. optimizer.lr=3e-5"))
            continue
        try:
            value = _typed(text, _field_at(Experiment, key))
        except ValueError as error:
            problems.append(Problem(str(error), where=origin.place, key=name))
            continue
        parent: Any = values
        for part in key[:-1]:
            if not isinstance(parent.get(part), dict):
                parent[part] = {}
            parent = parent[part]
        parent[key[-1]] = value
        sources = {k: v for k, v in sources.items() if k[: len(key)] != key} | {key: origin}
    return values, sources, problems


def _typed(text: str, info: FieldInfo | None) -> Any:
    """Returns the override's text, parsed unless the field it sets takes plain text."""
    if info is not None and get_origin(info.annotation) is dict:
        return parse_scalar(text)
    kinds = () if info is None else (get_args(info.annotation) or (info.annotation,))
    if str in kinds and (parse_scalar(text) is not None or type(None) not in kinds) and not text.startswith(("[", '"', "'")):
        return text
    return parse_scalar(text)


def _field_at(model: type[BaseModel], key: KeyPath) -> FieldInfo | None:
    """Returns the field behind a key; behind a key of the task, that of the first kind that has it."""
    info: FieldInfo | None = None
    models: list[type[BaseModel]] = [model]
    for part in key:
        info = next((fields[str(part)] for one in models if str(part) in (fields := fields_of(one))), None)
        models = blocks_of(info) if info else []
    return info


def _problem(detail: ErrorDetails, model: type[BaseModel], document: Document, sources: Mapping[KeyPath, Origin]) -> Problem:
    """Returns pydantic's error in our form: place, key, value, what is allowed."""
    key, parent = _located(detail["loc"], model)
    info = fields_of(parent).get(str(key[-1])) if parent and key else None
    source = _source_of(key, sources)
    where = source.place if source else document.where(key)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        names = sorted(fields_of(parent)) if parent else []
        near = " or ".join(map(repr, suggest_keys(key, parent, model)))
        return Problem("unknown key" + (f"; did you mean {near}?" if near else ""), where, dotted(key), allowed=", ".join(names) or None)
    if kind == "missing":
        return Problem(
            "the key is missing",
            where if source else document.where(key[:-1]),
            dotted(key),
            allowed=_expected(info),
        )
    if kind == "union_tag_not_found":
        kinds = [get_args(one.model_fields["kind"].annotation)[0] for one in blocks_of(info)] if info else []
        return Problem("the key is missing", where, f"{dotted(key)}.kind", allowed=", ".join(map(repr, kinds)))
    if kind == "union_tag_invalid":
        place = where if source else document.where((*key, "kind"))
        return _not_possible(context.get("tag"), str(context.get("expected_tags")), place, f"{dotted(key)}.kind")
    if kind == "literal_error":
        return _not_possible(detail["input"], str(context.get("expected")), where, dotted(key))
    if kind == "string_pattern_mismatch":
        return Problem(f"{shown(detail['input'])} is not possible", where, dotted(key), allowed=_form(info))
    if kind == "value_error":
        return Problem(str(context.get("error", detail["msg"])), where, dotted(key))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        what = f"{detail['input']!r} stands where a block of keys is expected"
        fix = f"{dotted(key)}.NAME=VALUE, or '{dotted(key)}={{NAME: VALUE}}'" if kind == "dict_type" else None
        return Problem(what, where, dotted(key), allowed=_expected(info), fix=_with_quotes(key, detail["input"]) or fix)
    return Problem(
        f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {shown(detail['input'])}",
        where,
        dotted(key),
        allowed=_bounds(parent, key) or (info.description if info else None),
        fix=_with_quotes(key, detail["input"]),
    )


def _with_quotes(key: KeyPath, value: object) -> str | None:
    """Returns what to type for a list or a mapping that YAML cannot read, because * without quotes begins an alias there; None: it is none."""
    if not isinstance(value, str) or not value.startswith(("[", "{")):
        return None
    quoted = re.sub(r"(?<=[\[,\s])\*[^\]},\s]*", lambda found: f'"{found[0]}"', value)
    is_mended = quoted != value and not isinstance(parse_scalar(quoted), str)
    return f"'{dotted(key)}={quoted}': what begins with * needs quotes" if is_mended else None


def _expected(info: FieldInfo | None) -> str | None:
    """Returns what may stand in a field: the keys of a block, of each of its kinds if there are several; else what the field says of itself."""
    blocks = blocks_of(info) if info else []
    if not blocks:
        return info.description if info else None
    return "a block of keys: " + "; or ".join(", ".join(fields_of(block)) for block in blocks)


def _not_possible(value: object, expected: str, where: str | None, key: str) -> Problem:
    near = suggest(str(value), re.findall(r"'([^']*)'", expected))
    return Problem(f"{value!r} is not possible" + (f"; did you mean {near!r}?" if near else ""), where, key, allowed=expected)


def _located(location: tuple[str | int, ...], model: type[BaseModel]) -> tuple[KeyPath, type[BaseModel] | None]:
    """Returns pydantic's location without the steps that name a branch of a union, and the block of keys that its last key stands in."""
    key: KeyPath = ()
    parent: type[BaseModel] | None = None
    current: type[BaseModel] | None = model
    branches: list[type[BaseModel]] = []
    is_named = False
    for index, part in enumerate(location):
        if is_named:  # this step is the name of a block in a mapping of blocks
            key, is_named = (*key, part), False
            continue
        if branches:  # this step is the tag that chooses one of them
            current, branches = next(one for one in branches if part in get_args(one.model_fields["kind"].annotation)), []
            continue
        if current is None:
            if isinstance(part, int):
                key = (*key, part)
            continue
        key, parent = (*key, part), current
        info = fields_of(current).get(str(part))
        models = blocks_of(info) if info else []
        current, branches = (models[0] if len(models) == 1 else None), (models if len(models) > 1 else [])
        is_named = bool(models) and info is not None and get_origin(info.annotation) is dict
        if info is None and index + 1 < len(location):
            break
    return key, parent


def _form(info: FieldInfo | None) -> str | None:
    """Returns what a text must look like: a name in words, or the field's description."""
    is_name = info is not None and any(getattr(rule, "pattern", None) == NAME_PATTERN for rule in info.metadata)
    return NAME_IN_WORDS if is_name or info is None else info.description


def _bounds(parent: type[BaseModel] | None, key: KeyPath) -> str | None:
    """Returns what a number must be, in words; None if the field is no number or has no bounds."""
    field = parent.model_json_schema()["properties"].get(key[-1], {}) if parent else {}
    for kind in field.get("anyOf", [field]):
        words = [f"{word} {kind[bound]}" for bound, word in _BOUNDS.items() if bound in kind]
        if words and kind["type"] in _NUMBERS:
            return f"{_NUMBERS[kind['type']]} {' and '.join(words)}" + (", or null" if "anyOf" in field else "")
    return None


_NUMBERS = {"integer": "a whole number", "number": "a number"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
"""Their names in a JSON schema."""


def _source_of(key: KeyPath, sources: Mapping[KeyPath, Origin]) -> Origin | None:
    """Returns where the override stands that set `key`, a block around it, or (for a key that is no block) something below it."""
    above = next((sources[key[:n]] for n in range(len(key), 0, -1) if key[:n] in sources), None)
    return above or next((source for name, source in sources.items() if name[: len(key)] == key), None)


def _origin(name: str, document: Document, sources: Mapping[KeyPath, Origin]) -> Origin:
    key: KeyPath = tuple(name.split("."))
    override = _source_of(key, sources)
    if override:
        return override
    if any(key[:n] in document.lines and not isinstance(_value_at(document.values, key[:n]), dict) for n in range(len(key), 0, -1)):
        return Origin("experiment", document.where(key))
    return Origin("default")


def _value_at(values: Any, key: KeyPath) -> Any:
    for part in key:
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _copied(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _copied(value) for key, value in values.items()}
    return [_copied(value) for value in values] if isinstance(values, list) else values
