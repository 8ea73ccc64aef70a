"""Stands in for the report."""

import sys
from pathlib import Path

(Path(sys.argv[1]) / "report.md").write_text("# written again\n")
