"""The tutorials' own way to a student, and to two tasks in one model: plain loops, written anew in a few lines.

    FULLRANK_DATA=../shared/data python benchmarks/tutorial_students.py distill --teacher FOLDER [--layers 0,2,5] [--steps 300]
    FULLRANK_DATA=../shared/data python benchmarks/tutorial_students.py multitask [--steps 300]

distill: the teacher computes in every step, whole vocabulary, AdamW at a constant rate. multitask: a batch of each task in turn. One process,
one thread; prints the score of the last weights and the processor's seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402
from tutorial_text import MODEL, align, read_columns  # noqa: E402

from trainers.sources import locate  # noqa: E402
from trainers.texts.entities import confusion, find_spans  # noqa: E402

Rows = list[tuple[str, int]]
BATCH_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--layers", default="0,2,5")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-4)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", ""))
    if not (data / "sst2").is_dir():
        sys.exit("FULLRANK_DATA does not name the folder with the data: nothing was measured")
    torch.manual_seed(0)
    random.seed(0)
    torch.set_num_threads(1)
    started = time.process_time()
    for line in METHODS[options.method](data, options):
        print(line, flush=True)
    print(f"{time.process_time() - started:.0f} s of the processor")


def distill(data: Path, options: argparse.Namespace) -> Iterator[str]:
    """Half of the loss from the labels, half from the teacher at temperature 2, times 4."""
    teacher, student = (AutoModelForSequenceClassification.from_pretrained(options.teacher) for _ in range(2))
    student.bert.encoder.layer = nn.ModuleList([student.bert.encoder.layer[int(number)] for number in options.layers.split(",")])
    tokenizer = AutoTokenizer.from_pretrained(options.teacher)
    train, dev = (read_sst2(data, split) for split in ("train", "dev"))
    optimizer = torch.optim.AdamW(student.parameters(), lr=options.lr)
    teacher.eval()
    student.train()
    for batch in drawn(train, options.steps):
        inputs = tokenizer([text for text, _ in batch], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            goal = functional.softmax(teacher(**inputs).logits / 2, -1)
        logits = student(**inputs).logits
        soft = functional.kl_div(functional.log_softmax(logits / 2, -1), goal, reduction="batchmean") * 4
        optimizer.zero_grad()
        (0.5 * functional.cross_entropy(logits, torch.tensor([label for _, label in batch])) + 0.5 * soft).backward()
        optimizer.step()
    yield f"teacher: dev {told_right(teacher, tokenizer, dev):.4f}, {size(teacher)}"
    yield f"student: dev {told_right(student, tokenizer, dev):.4f}, {size(student)}"


def multitask(data: Path, options: argparse.Namespace) -> Iterator[str]:
    """One encoder, two linear layers; steps of sentences and of tagged words take turns."""
    source = str(locate(MODEL, "model.source"))
    tokenizer, body = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
    train, dev = (read_sst2(data, split) for split in ("train", "dev"))
    files = {"train": "wnut17train.conll", "dev": "emerging.dev.conll"}
    tagged = {split: read_columns(data / "wnut17" / file) for split, file in files.items()}
    types = sorted({tag[2:] for sentence in tagged["train"] for _, tag in sentence if tag != "O"})
    names = ["O", *(f"{part}-{kind}" for kind in types for part in "BI")]
    aligned = {split: [align(tokenizer, sentence, names) for sentence in sentences] for split, sentences in tagged.items()}
    mood, tags = nn.Linear(body.config.hidden_size, 2), nn.Linear(body.config.hidden_size, len(names))
    optimizer = torch.optim.AdamW([*body.parameters(), *mood.parameters(), *tags.parameters()], lr=options.lr)
    body.train()
    turns = zip(drawn(train, options.steps // 2), drawn(aligned["train"], options.steps // 2), strict=True)
    for sentences, words in turns:
        inputs = tokenizer([text for text, _ in sentences], padding=True, truncation=True, return_tensors="pt")
        loss = functional.cross_entropy(mood(mean(body, inputs)), torch.tensor([label for _, label in sentences]))
        step(optimizer, loss)
        inputs, labels = padded(tokenizer, words)
        step(optimizer, functional.cross_entropy(tags(body(**inputs).last_hidden_state).flatten(0, 1), labels.flatten()))
    body.eval()
    with torch.no_grad():
        right, counts = 0, confusion([], [], len(types))
        for start in range(0, len(dev), BATCH_SIZE):
            part = dev[start : start + BATCH_SIZE]
            inputs = tokenizer([text for text, _ in part], padding=True, truncation=True, return_tensors="pt")
            right += int((mood(mean(body, inputs)).argmax(-1) == torch.tensor([label for _, label in part])).sum())
        for start in range(0, len(aligned["dev"]), BATCH_SIZE):
            inputs, labels = padded(tokenizer, aligned["dev"][start : start + BATCH_SIZE])
            for truth, guesses in zip(labels, tags(body(**inputs).last_hidden_state).argmax(-1), strict=True):
                seen = truth != -100
                counts += confusion(find_spans(truth[seen].tolist()), find_spans(guesses[seen].tolist()), len(types))
    f1 = 2 * int(counts.diagonal()[:-1].sum()) / max(int(counts[:, :-1].sum() + counts[:-1].sum()), 1)
    yield f"dev accuracy of the mood {right / len(dev):.4f}, F1 of the names {f1:.4f}"


def read_sst2(data: Path, split: str) -> Rows:
    rows = (line.split("\t") for line in (data / "sst2" / f"{split}.tsv").read_text(encoding="utf-8").splitlines())
    return [(text, int(label)) for text, label in rows]


def drawn(rows: list[Any], num_steps: int) -> Iterator[list[Any]]:
    """Yields so many batches, epoch after epoch."""
    order: list[Any] = []
    for _ in range(num_steps):
        if len(order) < BATCH_SIZE:
            order = random.sample(rows, len(rows))
        batch, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        yield batch


def mean(body: Any, inputs: Any) -> torch.Tensor:
    mask = inputs["attention_mask"][:, :, None]
    states = body(**inputs).last_hidden_state
    return (states * mask).sum(1) / mask.sum(1)


def padded(tokenizer: Any, rows: list[dict[str, list[int]]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    inputs = tokenizer.pad([{"input_ids": row["input_ids"], "attention_mask": row["attention_mask"]} for row in rows], return_tensors="pt")
    labels = nn.utils.rnn.pad_sequence([torch.tensor(row["labels"]) for row in rows], batch_first=True, padding_value=-100)
    return dict(inputs), labels


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def told_right(model: Any, tokenizer: Any, rows: Rows) -> float:
    model.eval()
    num_right = 0
    with torch.no_grad():
        for start in range(0, len(rows), BATCH_SIZE):
            batch = rows[start : start + BATCH_SIZE]
            found = model(**tokenizer([text for text, _ in batch], padding=True, truncation=True, return_tensors="pt")).logits.argmax(-1)
            num_right += int((found == torch.tensor([label for _, label in batch])).sum())
    return num_right / len(rows)


def size(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters"


METHODS = {"distill": distill, "multitask": multitask}

if __name__ == "__main__":
    main()
