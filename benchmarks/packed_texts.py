"""What packing does to a step of text classification: padded and packed batches, grouped by length and as they come, in turns.

    FULLRANK_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/packed_texts.py [--steps 10]

MiniLM on SST-2's sentences in batches of 32, as fullrank trains it, with dropout; this process's CPU seconds. Then, without dropout, how far the
losses of packed batches are from those of the same batches padded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent))

from step_profile import MODEL, Batch, Trained, load_batches

from trainers.host_memory import keep_freed_memory
from trainers.models.attention import use_attention
from trainers.models.cpu_dropout import use_cpu_dropout
from trainers.models.first_token import read_first_token
from trainers.sources import locate
from trainers.texts.packing import pack, prove_packed_texts

Step = tuple[str, str]
"""padded or packed; grouped by length or as they come."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")) / "sst2" / "train.tsv"
    if not data.is_file():
        sys.exit("FULLRANK_DATA does not name a folder with sst2/train.tsv in it: nothing was measured")
    source = str(locate(MODEL, "model.source"))
    trained = Trained(load_network(source))
    batches = {order: load_batches(data, source, options.steps, order == "grouped") for order in ("grouped", "as they come")}
    turns: list[Step] = [(form, order) for order in batches for form in ("padded", "packed")]
    seconds: dict[Step, list[float]] = {turn: [] for turn in turns}
    trained.step(*batches["grouped"][0])
    for number in range(options.steps):
        for form, order in turns:
            started = time.process_time()
            trained.learn(inputs_of(batches[order][number], form))
            seconds[form, order].append(time.process_time() - started)
    print("| batches | form | ms of CPU a step | tokens a step | of them real |\n|---|---|---:|---:|---:|")
    for form, order in turns:
        real = sum(int(mask.sum()) for _, mask in batches[order]) / options.steps
        computed = real if form == "packed" else sum(mask.numel() for _, mask in batches[order]) / options.steps
        print(f"| {order} | {form} | {1000 * statistics.mean(seconds[form, order]):.0f} | {computed:.0f} | {real / computed:.1%} |")
    for order in batches:
        ratios = [padded / packed for padded, packed in zip(seconds["padded", order], seconds["packed", order], strict=True)]
        print(f"{order}: packed is {statistics.median(ratios):.2f} times as fast (median of {options.steps} batches)")
    print(f"losses without dropout: at most {worst_difference(trained.network, batches['as they come'][:4]):.1e} apart, relative")


def load_network(source: str) -> Any:
    from transformers import AutoModelForSequenceClassification, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    keep_freed_memory()
    use_cpu_dropout(network)
    use_attention(network)
    assert read_first_token(network)
    prove_packed_texts(network, network.config.vocab_size)
    return network


def inputs_of(batch: Batch, form: str) -> dict[str, Any]:
    inputs = {"input_ids": batch[0], "attention_mask": batch[1]}
    return pack(inputs, 0) if form == "packed" else inputs


def worst_difference(network: Any, batches: list[Batch]) -> float:
    """Returns the largest relative difference of a text's loss."""
    network.eval()
    worst = 0.0
    with torch.no_grad():
        for batch in batches:
            labels = torch.arange(len(batch[0])) % 2
            padded, packed = (
                functional.cross_entropy(network(**inputs_of(batch, form)).logits, labels, reduction="none") for form in ("padded", "packed")
            )
            worst = max(worst, float(((packed - padded) / padded).abs().max()))
    return worst


if __name__ == "__main__":
    main()
