"""Reads YAML by version 1.2's rules for numbers and booleans, keeping the line of every key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from launch.config.errors import ConfigError, Problem

KeyPath = tuple[str | int, ...]

MAX_DIGITS = 1000
"""Of a whole number; Python itself neither reads nor prints more than 4300."""


@dataclass(frozen=True)
class Document:
    """The values of one YAML file and the line each key stands on."""

    values: dict[str, Any]
    path: Path
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, key: KeyPath) -> str:
        """Returns `file:line` of the key, or of the nearest key around it."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.path}:{self.lines[key]}" if key else str(self.path)


def load_yaml(path: Path) -> Document:
    """Returns the values of a YAML file, read by YAML 1.2's rules for numbers and booleans.

    Raises:
        ConfigError: unreadable, not YAML, not a mapping, or a key that stands twice (both lines are named).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Problem(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path))) from error
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(Problem("the file holds nothing but comments" if text.strip() else "the file is empty", where=str(path)))
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(Problem("the file is not a block of 'key: value' lines", where=f"{path}:{node.start_mark.line + 1}"))
        lines: dict[KeyPath, int] = {}
        problems: list[Problem] = []
        values = _construct(loader, node, (), path, lines, problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        fix = "quotes around what begins with * (YAML takes it for the name of an alias): '*.bias'" if "alias" in (error.context or "") else None
        raise ConfigError(Problem(f"not valid YAML: {error.problem or error.context}", where=where, fix=fix)) from error
    except yaml.YAMLError as error:
        raise ConfigError(Problem(f"not valid YAML: {str(error).splitlines()[0]}", where=str(path))) from error
    except RecursionError as error:
        raise ConfigError(
            Problem("a value contains itself, or is nested too deeply", where=str(path), fix="no alias (*name) inside its own anchor")
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    if problems:
        raise ConfigError(*problems)
    return Document(values, path, lines)


def parse_scalar(text: str) -> Any:
    """Returns the value that `text` would have in a YAML file (lists and mappings in flow style too).

    Raises:
        ValueError: a character that cannot stand in a YAML file.
    """
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        raise ValueError(f"holds {chr(error.character)!r}, a character that cannot stand in a YAML file") from error
    try:
        node = loader.get_single_node()
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, RecursionError):
        return text
    finally:
        loader.dispose()


def dotted(key: KeyPath) -> str:
    """Returns `a.b[0]` for ("a", "b", 0)."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


def shown(value: object, width: int = 60) -> str:
    """Returns a value as Python writes it, cut to fit into a message."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."


class _Loader(yaml.SafeLoader):
    """PyYAML with YAML 1.2's core types: `no` is a word, `04:00:00` a word, `3e-4` a number, dates are words."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # `!!int abc`, or more digits than Python reads
            what = f"{shown(node.value)} cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

    def refuse_tag(self, node: yaml.Node) -> None:
        what = f"the tag {node.tag.replace(_CORE, '!!')} makes what no key takes: delete it"
        raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)


_CORE = "tag:yaml.org,2002:"
_TAGS = tuple(_CORE + name for name in ("null", "bool", "int", "float", "str", "seq", "map"))
_Loader.yaml_constructors = {tag: _Loader.yaml_constructors[tag] for tag in _TAGS} | {None: _Loader.refuse_tag}  # no !!binary, !!set, ...
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", "~nN"),
):
    _Loader.add_implicit_resolver(f"{_CORE}{_tag}", re.compile(f"(?:{_pattern})$"), [*_first] + ([""] if _tag == "null" else []))


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{len(text)} digits")
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor(f"{_CORE}int", _construct_int)
_Loader.add_constructor(f"{_CORE}float", _construct_float)


def _construct(loader: _Loader, node: yaml.Node, key: KeyPath, path: Path, lines: dict[KeyPath, int], problems: list[Problem]) -> Any:
    """Returns the value of a node; notes the line of every key below it, and keys that stand twice."""
    if node.tag not in _TAGS:
        loader.refuse_tag(node)
    if isinstance(node, yaml.MappingNode):
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            name = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(name, str):
                name = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else str(name)
            if name in values:
                twice = dotted((*key, name))
                first = lines[(*key, name)]
                problems.append(Problem(f"the key stands twice, first in line {first}", f"{path}:{line}", twice, fix="delete one of the two lines"))
                continue
            lines[(*key, name)] = line
            values[name] = _construct(loader, value_node, (*key, name), path, lines, problems)
        return values
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*key, index)] = item.start_mark.line + 1
            items.append(_construct(loader, item, (*key, index), path, lines, problems))
        return items
    return loader.construct_object(node, deep=True)
