"""Texts of every task small enough for a test: GLUE's own files, tagged words, questions; written with the words of tests/tiny.py."""

from __future__ import annotations

import json
import random
from pathlib import Path

from launch.config.tasks.glue import GLUE, GlueName
from tests.tiny import BAD, GOOD, NEUTRAL

_GLUE_HEADERS: dict[GlueName, list[str]] = {
    "cola": [],
    "sst2": ["sentence", "label"],
    "mrpc": ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
    "qqp": ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
    "stsb": ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"],
    "mnli": ["index", "promptID", "pairID", "sentence1", "sentence2", "label1", "gold_label"],
    "qnli": ["index", "question", "sentence", "label"],
    "rte": ["index", "sentence1", "sentence2", "label"],
    "wnli": ["index", "sentence1", "sentence2", "label"],
}
_COLA_COLUMNS = ["source", "label", "star", "sentence"]
_NAMED = ("mnli", "qnli", "rte")
"""Tasks whose files say the classes by name; the others by number."""


def tiny_glue(folder: Path, name: GlueName, num_rows: int = 61) -> Path:
    """Writes train.tsv, dev.tsv and dev_mismatched.tsv in the layout of the benchmark's own files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (file, rows) in enumerate((("train.tsv", num_rows), ("dev.tsv", 14), ("dev_mismatched.tsv", 12))):
        lines = ["\t".join(_GLUE_HEADERS[name])] if _GLUE_HEADERS[name] else []
        (folder / file).write_text("\n".join([*lines, *_glue_rows(name, rows, seed=number)]) + "\n", encoding="utf-8")
    return folder


def _glue_rows(name: GlueName, num_rows: int, seed: int) -> list[str]:
    source, task = random.Random(seed), GLUE[name]
    *texts, label = task.tsv
    rows = []
    for number in range(num_rows):
        share = number % max(len(task.label_names), 6) if not task.label_names else number % len(task.label_names)
        target = f"{share:.1f}" if not task.label_names else task.label_names[share] if name in _NAMED else str(share)
        words = [" ".join(source.choices(GOOD if share else BAD, k=source.randint(1, 3)) + source.choices(NEUTRAL, k=4)) for _ in texts]
        values = dict(zip(texts, words, strict=True)) | {label: target}
        rows.append("\t".join(values.get(column, "x") for column in _GLUE_HEADERS[name] or _COLA_COLUMNS))
    return rows


def tiny_tagged(path: Path, num_sentences: int, seed: int = 0) -> Path:
    """Writes words and their tags, a line each: good words are of the type praise, bad ones of the type blame; returns the file."""
    source, lines = random.Random(seed), list[str]()
    for _ in range(num_sentences):
        for _ in range(source.randint(2, 4)):
            lines += [f"{word}\tO" for word in source.choices(NEUTRAL, k=source.randint(1, 3))]
            words, kind = source.choice(((GOOD, "praise"), (BAD, "blame")))
            lines += [f"{word}\t{'I' if number else 'B'}-{kind}" for number, word in enumerate(source.choices(words, k=source.randint(1, 2)))]
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tiny_squad(path: Path, num_articles: int, seed: int = 0) -> Path:
    """Writes a SQuAD file, two paragraphs of 20 to 70 words an article, a question each: the answer is the only good words; returns the file."""
    source = random.Random(seed)
    articles = []
    for number in range(num_articles):
        paragraphs = []
        for part in range(2):
            words, answer = source.choices(NEUTRAL, k=source.randint(20, 70)), " ".join(source.choices(GOOD, k=source.randint(1, 2)))
            place = source.randrange(len(words))
            start = len(" ".join(words[:place])) + (place > 0)
            context = " ".join([*words[:place], answer, *words[place:]])
            asked = {"id": f"{number}-{part}", "question": "what is it", "answers": [{"text": answer, "answer_start": start}]}
            paragraphs.append({"context": context, "qas": [asked]})
        articles.append({"title": f"article {number}", "paragraphs": paragraphs})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")
    return path
