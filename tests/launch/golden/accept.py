"""Writes the golden files anew from what is rendered now; look at `git diff` afterwards."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    os.environ["FULLRANK_ACCEPT_GOLDEN"] = "1"
    sys.exit(pytest.main([*map(str, Path(__file__).parents[1].glob("test_render*.py")), "-q", "-k", "golden"]))
