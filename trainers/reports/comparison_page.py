"""Writes `fullrank compare` as one HTML page: `python -P -m trainers.reports.comparison_page FILE`, the comparison as JSON on standard input."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from launch.config.errors import EXIT_CONFIG, EXIT_DONE, EXIT_PREFLIGHT, install_words
from launch.config.metrics import read_metrics
from launch.config.run_dir import RunDir, write_atomic
from trainers.reports.rendering import code, escaped, render_page, table

_SECTIONS = (("Configuration", "configuration"), ("Launch", "launch"), ("Scores", "scores"))


def main() -> int:
    """Writes the page, and returns the exit code."""
    path = Path(sys.argv[1]).absolute()
    try:
        write_atomic(path, comparison_page(json.load(sys.stdin)))
    except OSError as error:
        print(f"error: {path}: cannot be written: {error.strerror}\n    try: another --html FILE", file=sys.stderr)
        return EXIT_CONFIG
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed, and draws the curves\n    try: {install_words('train')}", file=sys.stderr)
        return EXIT_PREFLIGHT
    return EXIT_DONE


def comparison_page(found: dict[str, Any]) -> str:
    """Returns the page: curves over each other, then what differs, then the scores."""
    from trainers.reports.figures import draw_comparison

    names = found["names"]
    records = [read_metrics(RunDir(Path(run)).metrics) for run in found["runs"]]
    title = f"{' and '.join(dict.fromkeys(found['facts']['experiment']))}: {len(names)} runs compared"
    parts = [f"# {escaped(title)}", *(f"- {escaped(note)}" for note in found["notes"])]
    parts.append(table(("", *map(escaped, names)), [*_rows(found["facts"]), (code("directory"), *map(code, found["runs"]))]))
    with tempfile.TemporaryDirectory() as folder:
        if any(records):
            draw_comparison(Path(folder) / "curves.png", dict(zip(names, records, strict=True)))
            parts += ["## Curves", "![losses of the runs over optimizer steps](curves.png)"]
        for heading, key in _SECTIONS:
            parts += [f"## {heading}", table(("key", *map(escaped, names)), _rows(found[key])) if found[key] else "No difference."]
        return render_page(title, "\n\n".join(parts) + "\n", Path(folder))


def _rows(values: dict[str, list[Any]]) -> list[tuple[str, ...]]:
    return [(code(key), *(_shown(value) for value in found)) for key, found in values.items()]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else code(str(value).lower() if isinstance(value, bool) else str(value))


if __name__ == "__main__":
    sys.exit(main())
