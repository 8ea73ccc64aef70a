"""One small experiment under every engine: how far losses, gradient norms and exported predictions are from one process, and what a rank holds.

    python benchmarks/engines.py [--steps 50] [--only zero3] [--folder DIR]

A BERT of 2 layers of 32 on 163 ragged sentences in batches of 24 (the last of an epoch has 19), fp32, no dropout, on the CPU over gloo; 40
sentences are evaluated twice. SGD with a clipping that fires in most steps, and AdamW with weight decay. Differences are relative, the largest of
all steps; exported models are loaded by from_pretrained, and the difference is that of logits. Exit code 1 if one is above 1e-5.

SGD has no momentum: with it, one balanced batch in 50 steps has a gradient that nearly vanishes, whose norm rounding alone (accumulating in one
process) moves by 4e-5, while its loss agrees to 2e-7.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import forked
import torch
from torch import Tensor

from tests.engines import ADAMW, SGD, told, write_experiment, write_strategies

LAYOUTS: dict[str, tuple[str | None, int, int]] = {
    "1 process": (None, 1, 24),
    "1 process, accumulating 2": (None, 1, 12),
    "1 process, accumulating 4": (None, 1, 6),
    "DDP x2": (None, 2, 12),
    "DDP x2, accumulating 4": (None, 2, 3),
    "DDP x4": (None, 4, 6),
    "FSDP2 x1": ("fsdp2", 1, 24),
    "FSDP2 x2": ("fsdp2", 2, 12),
    "FSDP2 x2, accumulating 2": ("fsdp2", 2, 6),
    "FSDP2 x2, accumulating 4": ("fsdp2", 2, 3),
    "FSDP2 x3": ("fsdp2", 3, 8),
    "ZeRO-1 x2": ("zero1", 2, 12),
    "ZeRO-1 x2, accumulating 2": ("zero1", 2, 6),
    "ZeRO-2 x2": ("zero2", 2, 12),
    "ZeRO-2 x2, accumulating 4": ("zero2", 2, 3),
    "ZeRO-3 x2": ("zero3", 2, 12),
    "ZeRO-3 x2, accumulating 4": ("zero3", 2, 3),
    "ZeRO-3 x3": ("zero3", 3, 8),
    "ZeRO-3 offload x2": ("zero3_offload", 2, 12),
}
"""Name -> (strategy of tests/engines.py, processes, micro-batch); the first is the reference."""

OPTIMIZERS = {"SGD": (*SGD, "optimizer.momentum=0"), "AdamW": ADAMW}
CLOSE = 1e-5
COLUMNS = ("loss", "gradient_norm", "accuracy")


def main() -> None:
    """Prints one table; ends with 1 if a difference is above 1e-5."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--only", default="", help="layouts whose name contains this, beside the reference")
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args()
    worst = 0.0
    forked.load_engines()
    print("| optimizer | layout | loss | gradient norm | accuracy | exported logits | parameters a rank, kB | seconds |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        config = write_experiment(folder)
        write_strategies(folder)
        os.environ.setdefault("FULLRANK_CACHE", str(folder / "cache"))
        steps = [f"train.duration={options.steps} steps", f"evaluate.every={max(options.steps // 2, 1)} steps"]
        for optimizer in options.optimizers.split(","):
            reference: list[dict[str, Any]] = []
            expected = torch.empty(0)
            for number, (layout, (strategy, num_processes, micro_batch)) in enumerate(LAYOUTS.items()):
                if number and options.only.lower() not in layout.lower():
                    continue
                started, run = time.perf_counter(), folder / f"{optimizer}-{number}"
                words = [*told(folder, strategy), *OPTIMIZERS[optimizer], *steps, f"train.micro_batch_size={micro_batch}"]
                train(config, run, words, num_processes)
                records, logits = forked.read_records(run), predict(run / "model")
                if not number:
                    reference, expected = records, logits
                found = [largest_difference(records, reference, name) for name in COLUMNS] + [float((logits - expected).abs().max())]
                worst = max(worst, *found)
                held = json.loads((run / "status.json").read_text(encoding="utf-8"))["parameter_bytes"]
                cells = " | ".join(f"{value:.1e}" for value in found)
                shares = ", ".join(f"{part / 1e3:.1f}" for part in held)
                print(f"| {optimizer} | {layout} | {cells} | {shares} | {time.perf_counter() - started:.1f} |", flush=True)
    print(f"\nlargest difference from one process in {options.steps} steps: {worst:.1e}")
    sys.exit(worst > CLOSE)


def train(config: Path, run: Path, words: list[str], num_processes: int) -> None:
    """Trains to the end; exits with the place of the output if a rank fails."""
    logs = run.with_name(f"{run.name}.logs")
    codes = forked.wait(forked.start(["--config", str(config), "--run-dir", str(run), *words], num_processes, logs))
    if any(codes):
        sys.exit(f"{run.name} ended with {codes}: " + (logs / "rank_0.log").read_text(errors="replace")[-3000:])


def predict(folder: Path) -> Tensor:
    """Returns the logits of an exported classifier as the library loads it, float32 [4, 2]."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits: Tensor = model(torch.arange(40).remainder(35).reshape(4, 10)).logits
    return logits


def largest_difference(records: list[dict[str, Any]], reference: list[dict[str, Any]], name: str) -> float:
    """Returns the largest relative difference of one metric, record by record, which must be of the same steps and numbers of samples."""
    place = ("step", "split", "num_samples")
    assert [[record.get(key) for key in place] for record in records] == [[record.get(key) for key in place] for record in reference]
    pairs = [(mine[name], theirs[name]) for mine, theirs in zip(records, reference, strict=True) if name in theirs]
    return max(abs(mine - theirs) / max(abs(theirs), 1e-12) for mine, theirs in pairs)


if __name__ == "__main__":
    main()
