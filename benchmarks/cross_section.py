"""A few cases of each campaign, all forked from one process that has imported everything once: what CI runs of them.

    python benchmarks/cross_section.py [--folder DIR]

Exit code 1 if any of them found a problem. The whole campaigns: bit_identity.py, kills.py, warned_stops.py, sample_order.py, moves.py,
strategy_matrix.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import bit_identity
import kills
import moves
import sample_order
import strategy_matrix

TEXT = ["--tasks", "text", "--processes", "3", "--precisions", "fp32", "--workers", "2", "--places", "mid_accumulation,evaluation"]
IMAGES = ["--tasks", "image", "--processes", "2", "--precisions", "bf16", "--workers", "0", "--places", "evaluation"]
KILLS = ["--kills", "3", "--kills-a-run", "3", "--steps", "30", "--every", "5"]
SHARDED_KILLS = ["--kills", "2", "--kills-a-run", "2", "--steps", "20", "--every", "5", "--within", "1", "--strategy", "zero3"]
CASES = (
    ("text", bit_identity.main, TEXT),
    ("images", bit_identity.main, IMAGES),
    ("kills", kills.main, KILLS),
    ("order", sample_order.main, []),
    ("sharded_kills", kills.main, SHARDED_KILLS),
    ("moves", moves.main, ["--engines", "ddp,zero2"]),
    ("batch_norm", strategy_matrix.main, ["--features", "BatchNorm", "--strategies", "ddp,zero3"]),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        codes = [campaign([*words, "--folder", str(folder / name)]) for name, campaign, words in CASES]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
