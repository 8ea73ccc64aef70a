"""The generated files in the repository are those of the code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch.reference import reference_page
from launch.schema import SCHEMAS

ROOT = Path(__file__).parents[2]
SHOW = """
import json
from docs.write_reference import ROOT, generated_files
print(json.dumps({str(path.relative_to(ROOT)): text for path, text in generated_files().items()}))
"""


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    ended = subprocess.run([sys.executable, "-c", SHOW], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    files: dict[str, str] = json.loads(ended.stdout)
    return files


def test_schemas_and_reference_pages_are_fresh(generated):
    stale = [name for name, text in generated.items() if not (ROOT / name).is_file() or (ROOT / name).read_text(encoding="utf-8") != text]
    assert stale == [], "renew them with: make reference"


def test_nothing_else_lies_beside_them(generated):
    there = {str(path.relative_to(ROOT)) for folder in ("configs/schema", "docs/reference") for path in (ROOT / folder).iterdir()}
    assert there == set(generated)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_key_has_a_meaning(kind):
    rows = [line.split(" | ") for line in reference_page(kind).splitlines() if line.startswith("| `")]
    assert rows
    assert [row[0] for row in rows if not row[-1].strip(" |")] == []


def test_a_key_s_row_says_what_it_may_be_its_default_and_what_it_means():
    page = reference_page("experiment")
    assert "| `task.max_length` | whole number at least 2 | `128` | Longest input in tokens; longer texts are cut at the end. |" in page
    assert "| `optimizer.lr` | number above 0 | required | Peak learning rate. |" in page
    assert "| `tracking.log_every` | a length, e.g. `3 steps`, `3 epochs` | `10 steps` | How often a training record is written. |" in page
    assert "## task (text_classification)\n\nOne label for a text, or for a pair of texts.\n" in page
