"""What 8-bit integers cost and gain on a CPU: a model as it is, as fullrank export writes it, and by torch's own quantize_dynamic.

    FULLRANK_DATA=../shared/data python benchmarks/int8.py MODEL_FOLDER [--limit N]

On SST-2's dev.tsv, one thread. Seconds are the processor's, the best of five interleaved rounds: of one sentence of 25 tokens, and of 32.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

from trainers.models.int8 import load_int8, quantize, save_int8  # noqa: E402

NUM_TOKENS = 25
"""SST-2's sentences of dev have 23.6 tokens on average (20,599 in 872)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    path = Path(os.environ.get("FULLRANK_DATA", "")) / "sst2" / "dev.tsv"
    if not path.is_file():
        sys.exit("FULLRANK_DATA does not name a folder with sst2/dev.tsv in it: nothing was measured")
    torch.set_num_threads(1)
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()][: options.limit]
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    models, sizes = variants(options.model)
    times = {size: interleaved(models, size) for size in (1, 32)}
    print(f"{'':<20}{'MB':>8}{'accuracy':>10}{'1 sentence':>13}{'32 sentences':>14}")
    for name, model in models.items():
        seconds = "".join(f"{1000 * times[size][name]:>{width}.1f} ms" for size, width in ((1, 10), (32, 11)))
        print(f"{name:<20}{sizes[name] / 1e6:>8.1f}{accuracy(model, tokenizer, rows):>10.4f}{seconds}", flush=True)


def variants(folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Returns the three models, and the bytes of their weights on disk."""
    whole = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with tempfile.TemporaryDirectory() as scratch:
        ours = copy.deepcopy(whole)
        quantize(ours)
        shutil.copy(folder / "config.json", scratch)
        num_bytes = save_int8(ours, Path(scratch)).stat().st_size
        exported = load_int8(scratch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.ao.quantization says that it will go
            stock = torch.ao.quantization.quantize_dynamic(copy.deepcopy(whole), {nn.Linear}, dtype=torch.qint8)
            torch.save(stock.state_dict(), Path(scratch) / "stock.pt")
        sizes = {"float32": (folder / "model.safetensors").stat().st_size, "fullrank export": num_bytes}
        sizes["quantize_dynamic"] = (Path(scratch) / "stock.pt").stat().st_size
    return {"float32": whole, "fullrank export": exported, "quantize_dynamic": stock}, sizes


def interleaved(models: dict[str, Any], num_sentences: int, num_rounds: int = 5) -> dict[str, float]:
    """Returns the best processor seconds of each model on so many sentences."""
    ids = torch.randint(1000, 2000, (num_sentences, NUM_TOKENS))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    best = dict.fromkeys(models, float("inf"))
    with torch.inference_mode():
        for _ in range(num_rounds):
            for name, model in models.items():
                best[name] = min(best[name], timed(lambda model=model: model(**inputs), num_calls=1 + 20 // num_sentences))
    return best


def timed(call: Callable[[], Any], num_calls: int) -> float:
    call()
    started = time.process_time()
    for _ in range(num_calls):
        call()
    return (time.process_time() - started) / num_calls


def accuracy(model: Any, tokenizer: Any, rows: list[list[str]]) -> float:
    """Returns the share of sentences that are told right; sorted by length, 32 at once."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    num_right = 0
    with torch.inference_mode():
        for start in range(0, len(rows), 32):
            batch = rows[start : start + 32]
            encoded = tokenizer([text for text, _ in batch], padding=True, truncation=True, max_length=128, return_tensors="pt")
            found = model(**encoded).logits.argmax(-1)
            num_right += int((found == torch.tensor([int(label) for _, label in batch])).sum())
    return num_right / len(rows)


if __name__ == "__main__":
    main()
