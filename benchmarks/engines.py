"""One small experiment under every engine: the largest relative difference of losses and gradient norms from one process, and what a rank holds.

    python benchmarks/engines.py [--steps 50] [--only zero3]

A BERT of 2 layers of 32 on 163 ragged sentences in batches of 24, fp32, no dropout, on the CPU over gloo; a validation split of an odd
size is evaluated twice. SGD with a clipping that fires in most steps, and AdamW with weight decay. Minutes on two cores. Without momentum:
with it the gradient of one balanced batch in 50 steps nearly vanishes, and rounding alone (accumulation in one process) moves that norm by 4e-5.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.engines import ADAMW, SGD, write_experiment, write_strategies
from tests.ranks import train

LAYOUTS: dict[str, tuple[str | None, int, int]] = {
    "1 process": (None, 1, 24),
    "1 process, accumulating 2": (None, 1, 12),
    "1 process, accumulating 4": (None, 1, 6),
    "DDP x2": (None, 2, 12),
    "DDP x2, accumulating 4": (None, 2, 3),
    "DDP x4": (None, 4, 6),
    "FSDP2 x1": ("fsdp2", 1, 24),
    "FSDP2 x2": ("fsdp2", 2, 12),
    "FSDP2 x2, accumulating 4": ("fsdp2", 2, 3),
    "ZeRO-1 x2": ("zero1", 2, 12),
    "ZeRO-1 x2, accumulating 2": ("zero1", 2, 6),
    "ZeRO-2 x2": ("zero2", 2, 12),
    "ZeRO-2 x2, accumulating 4": ("zero2", 2, 3),
    "ZeRO-3 x2": ("zero3", 2, 12),
    "ZeRO-3 x2, accumulating 4": ("zero3", 2, 3),
    "ZeRO-3 offload x2": ("zero3_offload", 2, 12),
}
"""Name -> (strategy of tests/engines.py, processes, micro-batch); the first is the reference."""


def main() -> None:
    """Prints one table; ends with 1 if a difference is above 1e-5."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--only", default="", help="layouts whose name contains this, beside the reference")
    options = parser.parse_args()
    worst = 0.0
    print(f"{'':<10}{'':<28}{'loss':>10}{'gradient norm':>16}{'accuracy':>10}{'parameters a rank':>20}{'seconds':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = write_experiment(folder)
        write_strategies(folder)
        for optimizer, arguments in {"SGD": (*SGD, "optimizer.momentum=0"), "AdamW": ADAMW}.items():
            reference: list[dict[str, Any]] = []
            for number, (layout, (strategy, num_processes, micro_batch)) in enumerate(LAYOUTS.items()):
                if number and options.only.lower() not in layout.lower():
                    continue
                started, run = time.perf_counter(), folder / f"{optimizer}-{number}"
                told = ["--strategy", str(folder / f"{strategy}.yaml")] if strategy else []
                steps = [f"train.duration={options.steps} steps", f"evaluate.every={max(options.steps // 2, 1)} steps"]
                records = train(config, run, *told, *arguments, *steps, f"train.micro_batch_size={micro_batch}", num_processes=num_processes)
                reference = reference or records
                differences = [largest_difference(records, reference, name) for name in ("loss", "gradient_norm", "accuracy")]
                worst = max(worst, *differences)
                held = json.loads((run / "status.json").read_text(encoding="utf-8"))["parameter_bytes"]
                shares = "/".join(f"{part / 1e3:.1f}" for part in held)
                cells = "".join(f"{value:>{width}.1e}" for value, width in zip(differences, (10, 16, 10), strict=True))
                print(f"{optimizer:<10}{layout:<28}{cells}{shares + ' kB':>20}{time.perf_counter() - started:>9.1f}", flush=True)
    print(f"largest relative difference from one process in {options.steps} steps: {worst:.1e}")
    sys.exit(worst > 1e-5)


def largest_difference(records: list[dict[str, Any]], reference: list[dict[str, Any]], name: str) -> float:
    """Returns the largest relative difference of one metric, record by record."""
    pairs = [(mine[name], theirs[name]) for mine, theirs in zip(records, reference, strict=True) if name in theirs]
    return max(abs(mine - theirs) / max(abs(theirs), 1e-12) for mine, theirs in pairs)


if __name__ == "__main__":
    main()
