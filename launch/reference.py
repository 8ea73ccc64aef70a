"""Reference pages in Markdown, made from the schemas and from the command line; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from launch.schema import SCHEMAS

HEADER = "<!-- Written by `make reference` from the descriptions in the code: do not edit. -->"

INTRODUCTIONS = {
    "experiment": "An experiment says what is trained. `fullrank run FILE KEY=VALUE` replaces any of these keys by its dotted name, e.g. "
    "`optimizer.lr=3e-5`.",
    "pipeline": "A pipeline says which experiments are trained one after another, and which begins with the model of an earlier one. "
    "`fullrank run FILE STAGE.KEY=VALUE` replaces a value of one stage, `KEY=VALUE` of all; `fullrank resume` goes on in the stage that stopped.",
    "strategy": "A strategy says how processes work together. It is an Accelerate configuration file; these are the keys that are read, "
    "and `--strategy NAME|FILE` chooses one.",
    "cluster": "A cluster file says what to ask a Slurm site for. `fullrank cluster init NAME` writes one into ~/.config/fullrank/clusters by asking "
    "the cluster; `--cluster NAME|FILE` chooses one.",
}

Schema = Mapping[str, Any]


def reference_page(kind: str) -> str:
    """Returns the page of one kind of file: every key with its type, default and meaning."""
    schema = SCHEMAS[kind]()
    lines = [HEADER, "", f"# {schema['title']}", "", INTRODUCTIONS.get(kind, ""), ""]
    for heading, description, section in _sections(schema, schema, ""):
        lines += [f"## {heading}", "", description, ""] if heading else []
        lines += _table(section, schema, f"{heading.partition(' ')[0]}." if heading else "")
    return "\n".join(lines).rstrip() + "\n"


def command_page(verbs: Mapping[str, Any]) -> str:
    """Returns the page of the command line.

    Args:
        verbs: name -> click's command.
    """
    lines = [HEADER, "", "# The command line", ""]
    for name, command in verbs.items():
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option" and parameter.name != "help"]
        words = " ".join(["fullrank", name, *(_in_usage(argument) for argument in arguments)])
        lines += [f"## fullrank {name}", "", command.help or "", "", f"    {words}", "", "| | |", "|---|---|"]
        lines += [f"| `{_cell(_metavar(argument))}` | {_cell(argument.help or '')} |" for argument in arguments]
        lines += [f"| `{_cell(_usage(option))}` | {_cell(option.help or '')} |" for option in options]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _sections(schema: Schema, root: Schema, key: str) -> Iterator[tuple[str, str, Schema]]:
    """Yields (dotted key, description, schema) of a block of keys and of the blocks inside it, the outer first."""
    yield key, str(schema.get("description", "")) if key else "", schema
    for name, field in schema.get("properties", {}).items():
        dotted = f"{key.partition(' ')[0]}.{name}" if key else name
        for branch in _branches(field, root):
            if "properties" in branch:
                kind = branch["properties"].get("kind", {}).get("const")
                yield from _sections(branch, root, f"{dotted} ({kind})" if kind else dotted)
            blocks = [one for pattern in branch.get("patternProperties", {}).values() for one in _branches(pattern, root) if "properties" in one]
            for block in blocks:
                yield from _sections(block, root, f"{dotted}.NAME")


def _branches(field: Schema, root: Schema) -> list[Schema]:
    """Returns the schemas that a field may be, with references followed."""
    choices = field.get("oneOf") or field.get("anyOf") or [field]
    return [root["$defs"][choice["$ref"].rpartition("/")[2]] if "$ref" in choice else choice for choice in choices]


def _table(section: Schema, root: Schema, prefix: str) -> list[str]:
    required = section.get("required", [])
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in section["properties"].items():
        default = "required" if name in required else f"`{_yaml(field['default'])}`" if "default" in field else ""
        kinds = " or ".join(dict.fromkeys(_kind(branch) for branch in _branches(field, root)))
        meaning = field.get("description") or next((branch["description"] for branch in _branches(field, root) if "description" in branch), "")
        rows.append(f"| `{prefix}{name}` | {_cell(kinds)} | {default} | {_cell(meaning)} |")
    return [*rows, ""]


def _kind(branch: Schema) -> str:
    """Returns in words what a value may be."""
    if "properties" in branch:
        return "a block of keys"
    if "const" in branch:
        return f"`{_yaml(branch['const'])}`"
    if "enum" in branch:
        return ", ".join(f"`{_yaml(value)}`" for value in branch["enum"])
    kind = branch.get("type")
    if isinstance(kind, list):
        return " or ".join(_kind({**branch, "type": one}) for one in kind)
    if "examples" in branch:
        return "a length, e.g. " + ", ".join(f"`{example}`" for example in branch["examples"])
    if kind == "array":
        items: Schema = branch.get("items") or next(iter(branch.get("prefixItems", [])), {})
        return f"a list of ({_kind(items)})" if items else "a list"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`", "null": "`null`", "object": "a mapping"}
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {branch[bound]:,}" for bound, word in bounds.items() if bound in branch and kind in ("integer", "number")]
    return " ".join([words.get(str(kind), "anything"), " and ".join(limits)]).strip()


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _in_usage(argument: Any) -> str:
    name = _metavar(argument) if argument.required else f"[{_metavar(argument)}]"
    return f"{name}..." if argument.nargs == -1 else name


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _usage(option: Any) -> str:
    """Returns `--strategy NAME|FILE`."""
    metavar = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
    return f"{'/'.join(option.opts)}{metavar}"
