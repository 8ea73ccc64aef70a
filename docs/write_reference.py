"""Writes docs/reference/*.md and configs/schema/*.json from the descriptions in the code: `make reference`."""

from __future__ import annotations

import json
from pathlib import Path

from launch.cli import VERBS, Verbs
from launch.reference import command_page, reference_page
from launch.schema import SCHEMAS

ROOT = Path(__file__).resolve().parents[1]


def generated_files() -> dict[Path, str]:
    """Returns the whole text of every generated file."""
    verbs = Verbs()
    schemas = {ROOT / f"configs/schema/{kind}.json": json.dumps(make(), indent=2, ensure_ascii=False) + "\n" for kind, make in SCHEMAS.items()}
    pages = {ROOT / f"docs/reference/{kind}.md": reference_page(kind) for kind in SCHEMAS}
    return schemas | pages | {ROOT / "docs/reference/commands.md": command_page({verb: verbs.get_command(None, verb) for verb in VERBS})}


if __name__ == "__main__":
    for path, text in generated_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
