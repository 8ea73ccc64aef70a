"""`fullrank schema`: what may stand in a file, for editors."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from launch.config.errors import ConfigError, Problem, suggest


def complete_schema(incomplete: str) -> list[str]:
    """Returns the kinds of files that begin so."""
    from launch.schema import SCHEMAS

    return [kind for kind in SCHEMAS if kind.startswith(incomplete)]


def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="What the file describes: experiment, strategy, ...", autocompletion=complete_schema)
    ] = "experiment",
) -> None:
    from launch.schema import SCHEMAS

    if kind not in SCHEMAS:
        near = suggest(kind, SCHEMAS)
        what = f"there is no schema of {kind!r}" + (f"; did you mean {near!r}?" if near else "")
        raise ConfigError(Problem(what, allowed=", ".join(SCHEMAS)))
    print(json.dumps(SCHEMAS[kind](), indent=2, ensure_ascii=False))
