"""Pairs of texts and numbers for texts, as GLUE has them, made of real data that is here; and the stock Trainer on them, for docs/tasks.md.

    FULLRANK_DATA=../shared/data python benchmarks/tutorial_pairs.py make DIR
    FULLRANK_DATA=../shared/data python benchmarks/tutorial_pairs.py qnli|ratings [--epochs N] [--lr LR] [--seed N]

qnli: made of SQuAD's questions as GLUE made its own (Wang et al., 2018, section 3.3): does this sentence of the context hold the answer? Each
question stands with the sentence that does, and with the other one that shares the most words with it; every sixth article is for dev. In the
benchmark's own layout, so that `fullrank run glue task.name=qnli task.layout=tsv` reads it. ratings: sentences of product reviews, each with its
mean rating from -4 to 4 by twenty people (VADER, ICWSM 2014), every fifth document for dev. Neither is GLUE's own data, which is not here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

HEADERS = {"qnli": "index\tquestion\tsentence\tlabel", "ratings": "rating\ttext"}
BATCH_SIZE = 16


def main() -> None:
    """Writes the files, or trains on them with the Trainer and prints what it reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", *HEADERS])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")).absolute()
    if not (data / "xquad_en").is_dir():
        sys.exit("FULLRANK_DATA does not name the folder with the data: nothing was made or measured")
    if options.what == "make":
        if options.folder is None:
            sys.exit("make needs a folder to write to")
        make(data, options.folder)
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        make(data, Path(scratch))
        print(train(Path(scratch) / options.what, options))
    print(f"{time.perf_counter() - started:.0f} s")


def make(data: Path, folder: Path) -> None:
    """Writes qnli/ and ratings/ with train.tsv and dev.tsv each."""
    articles = json.loads((data / "xquad_en" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    pairs: dict[str, list[str]] = {"train": [], "dev": []}
    for number, article in enumerate(articles):
        split = pairs["dev" if number % 6 == 5 else "train"]
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                split += [f"{len(split) + n}\t{row}" for n, row in enumerate(question_pairs(paragraph["context"], question))]
    ratings: dict[str, list[str]] = {"train": [], "dev": []}
    for line in (data / "vader_icwsm2014" / "amazonReviewSnippets_GroundTruth.txt").read_text(encoding="latin-1").splitlines():
        place, rating, text = line.split("\t", 2)
        ratings["dev" if int(place.split("_")[0]) % 5 == 4 else "train"].append(f"{rating}\t{one_line(text)}")
    for name, rows in (("qnli", pairs), ("ratings", ratings)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split, lines in rows.items():
            (folder / name / f"{split}.tsv").write_text("\n".join([HEADERS[name], *lines]) + "\n", encoding="utf-8")
            print(f"{folder / name / split}.tsv: {len(lines)} rows", file=sys.stderr)


def question_pairs(context: str, question: dict[str, Any]) -> list[str]:
    """Returns `question, sentence, label` of the sentence with the answer and of the most similar one without; nothing where all have it."""
    begin = question["answers"][0]["answer_start"]
    ends = [match.end() for match in re.finditer(r"[.!?][\"')\]]*\s+(?=[A-Z\"'(\[])", context)]
    spans = list(zip([0, *ends], [*ends, len(context)], strict=True))
    holding = next(span for span in spans if span[0] <= begin < span[1])
    asked = words(question["question"])
    others = sorted((span for span in spans if span != holding), key=lambda span: -len(asked & words(context[slice(*span)])))
    if not others:
        return []
    text = one_line(question["question"])
    return [f"{text}\t{one_line(context[slice(*span)])}\t{label}" for span, label in ((holding, "entailment"), (others[0], "not_entailment"))]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def one_line(text: str) -> str:
    return " ".join(text.split())


def train(folder: Path, options: argparse.Namespace) -> str:
    """Returns what the Trainer reached, with its own defaults beside the batch, the rate and the warm-up; nothing is grouped by length."""
    import numpy as np
    import torch
    from datasets import load_dataset
    from torchmetrics.functional import spearman_corrcoef
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    from benchmarks.tutorial_text import MODEL, train_stock
    from trainers.sources import locate

    torch.manual_seed(options.seed)
    source = str(locate(MODEL, "model.source"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    rows = load_dataset("csv", data_files={split: str(folder / f"{split}.tsv") for split in ("train", "dev")}, sep="\t", quoting=3)
    is_pairs = options.what == "qnli"
    targets = {split: [row == "not_entailment" for row in rows[split]["label"]] if is_pairs else rows[split]["rating"] for split in rows}
    encoded = {
        split: [
            dict(tokenizer(*texts, truncation=True, max_length=128)) | {"labels": int(target) if is_pairs else float(target)}
            for *texts, target in zip(
                *(rows[split][name] for name in (("question", "sentence") if is_pairs else ("text",))), targets[split], strict=True
            )
        ]
        for split in rows
    }
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2 if is_pairs else 1)
    options.keep = None
    predicted = train_stock(model, encoded["train"], DataCollatorWithPadding(tokenizer), options).predict(encoded["dev"]).predictions
    if is_pairs:
        return f"dev: accuracy {np.mean(predicted.argmax(-1) == np.array(targets['dev'])):.4f} of {len(predicted)} pairs"
    guessed, right = predicted[:, 0], np.array(targets["dev"], dtype=np.float32)
    ranked = float(spearman_corrcoef(torch.tensor(guessed), torch.tensor(right)))
    return f"dev: pearson {np.corrcoef(guessed, right)[0, 1]:.4f}, spearman {ranked:.4f} of {len(right)} sentences"


if __name__ == "__main__":
    main()
