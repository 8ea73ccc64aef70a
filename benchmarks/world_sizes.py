"""Compares training losses of MiniLM over world sizes, accumulation and launchers: the largest relative difference from one process.

    FULLRANK_DATA=../shared/data python benchmarks/world_sizes.py [--steps 50]

SST-2 sentences of $FULLRANK_DATA/sst2, fp32, no dropout; SGD with a clipping that fires, and AdamW. The first layout of each is the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sst2 import MODEL

BIN = Path(sys.executable).parent
OPTIMIZERS = {
    "SGD, clipped": ["optimizer.name=sgd", "optimizer.lr=0.05", "optimizer.weight_decay=0", "train.gradient_clip_norm=0.5"],
    "AdamW": ["optimizer.name=adamw", "optimizer.lr=5e-5"],
}
LAYOUTS = {
    "1 process": [],
    "1 process, accumulating 4": ["train.micro_batch_size=8"],
    "2 processes": ["--processes-per-node", "2"],
    "2 processes, accumulating 2": ["--processes-per-node", "2", "train.micro_batch_size=8"],
    "2 processes, accelerate launch": ["--processes-per-node", "2", "--launcher", "accelerate"],
}


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    steps = parser.parse_args().steps
    data = Path(os.environ.get("FULLRANK_DATA", "")) / "sst2"
    if not (data / "train.tsv").is_file():
        sys.exit("FULLRANK_DATA does not name a folder with sst2/train.tsv in it: nothing was measured")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    print(f"{'':<16}{'':<34}{'loss':>10}{'gradient norm':>16}   largest relative difference in {steps} steps")
    with tempfile.TemporaryDirectory() as scratch:
        for optimizer, options in OPTIMIZERS.items():
            reference: list[dict[str, Any]] = []
            for layout, arguments in LAYOUTS.items():
                records = train([*options, *arguments], steps, data.absolute(), Path(scratch) / f"{optimizer}-{layout}".replace(" ", "_"))
                reference = reference or records
                loss, norm = (largest_difference(records, reference, name) for name in ("loss", "gradient_norm"))
                print(f"{optimizer:<16}{layout:<34}{loss:>10.1e}{norm:>16.1e}", flush=True)


def train(arguments: list[str], steps: int, data: Path, run: Path) -> list[dict[str, Any]]:
    """Returns the training records of one run."""
    command = [
        *[str(BIN / "fullrank"), "run", "bert_sst2", "--run-dir", str(run), f"model.source={MODEL}", "model.dropout=0", f"data.source={data}"],
        *[
            "data.splits.train=train.tsv",
            "data.splits.validation=null",
            "data.columns=[sentence, label]",
            "evaluate.metric=loss",
            "evaluate.mode=min",
        ],
        *["evaluate.every=null", "checkpoint.every=null", f"train.duration={steps} steps", "train.precision=fp32", "tracking.log_every=1 step"],
        *["tracking.wandb.mode=disabled", *arguments],
    ]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ended.stdout}")
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def largest_difference(records: list[dict[str, Any]], reference: list[dict[str, Any]], name: str) -> float:
    """Returns the largest relative difference of one metric, step by step."""
    return max(abs(mine[name] - theirs[name]) / abs(theirs[name]) for mine, theirs in zip(records, reference, strict=True))


if __name__ == "__main__":
    main()
