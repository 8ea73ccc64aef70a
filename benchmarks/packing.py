"""Packed rows beside single ones on real text: the loss of every target, and the tokens that are computed for it.

    FULLRANK_DATA=../shared/data python benchmarks/packing.py [--lines 300] [--tokens 128]

The first lines of WikiText-2's validation file under MiniLM's tokenizer; a GPT-2 of 2 layers with large random weights (standard deviation 0.2,
so that what a token sees changes its loss), fp32, batches of 8 rows of the same model. One process.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from tutorial_lm import BATCH, MODEL

from launch.config.load import load_experiment
from launch.config.resolve import resolve
from trainers.sampler import evaluation_batches
from trainers.tasks import build_task


def main() -> None:
    """Prints the mean loss of both, how far apart they are, and the tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")) / "wikitext2_valid_test"
    if not data.is_dir():
        sys.exit("FULLRANK_DATA does not name the folder with the data: nothing was measured")
    losses = {}
    for rows in ("single", "packed"):
        losses[rows], num_targets, real, computed = measure(data, rows, options)
        print(f"{rows}: loss {losses[rows]:.6f} over {num_targets:,} targets; {computed:,} tokens computed, {real / computed:.1%} of them real")
    print(f"relative difference {abs(losses['packed'] / losses['single'] - 1):.1e}")


def measure(data: Path, rows: str, options: argparse.Namespace) -> tuple[float, int, int, int]:
    """Returns the mean loss, and the counts of targets, of real tokens and of computed ones."""
    config = f"{{model_type: gpt2, n_layer: 2, n_head: 2, n_embd: 128, n_positions: {options.tokens}, initializer_range: 0.2}}"
    words = [
        *(f"model.source={MODEL}", f"model.config={config}", f"task.rows={rows}", f"task.block_size={options.tokens}", f"data.source={data}"),
        *("data.splits.train=valid.txt", "data.splits.validation=valid.txt", "data.splits.test=null", f"data.limit={options.lines}"),
    ]
    task = build_task(resolve(load_experiment("causal_lm", words)))
    model, dataset = task.build_model().eval(), task.dataset("validation")
    loss_sum, counts = 0.0, [0, 0, 0]
    with torch.inference_mode():
        for indices in evaluation_batches(len(dataset), BATCH, 0, 1, task.lengths("validation")):
            batch = task.collate([dataset[0, int(index)] for index in indices])
            loss, num_targets = task.train_loss(model, batch, 0.0)
            loss_sum += float(loss)
            counts = [count + new for count, new in zip(counts, (int(num_targets), *task.batch_size_stats(batch)), strict=True)]
    return loss_sum / counts[0], counts[0], counts[1], counts[2]


if __name__ == "__main__":
    main()
