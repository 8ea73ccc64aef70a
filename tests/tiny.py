"""A BERT and a data set small enough for a test: trained in seconds, loaded by the real libraries."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

GOOD = "good great lovely warm bright funny superb moving honest wise".split()
BAD = "bad dull ugly cold dark boring awful clumsy fake silly".split()
NEUTRAL = "the a film story actor plot of and with is very quite it one two three scene music".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HIDDEN_SIZE, MAX_POSITIONS = 32, 64


def tiny_bert(folder: Path, seed: int = 0) -> Path:
    """Writes a BERT of 2 layers of 32, weights drawn from `seed`, with a WordPiece tokenizer of its own; returns its folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [*SPECIAL, *GOOD, *BAD, *NEUTRAL]
    BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}, model_max_length=MAX_POSITIONS).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * HIDDEN_SIZE,
        max_position_embeddings=MAX_POSITIONS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    return folder


def tiny_classifier(folder: Path, label_names: Sequence[str] = ("0", "1")) -> Path:
    """Writes tiny_bert with a head for these classes; returns its folder."""
    import torch
    from transformers import AutoModelForSequenceClassification

    tiny_bert(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = AutoModelForSequenceClassification.from_pretrained(folder, id2label=dict(enumerate(label_names)), label2id=None)
    network.save_pretrained(folder)
    return folder


def tiny_sentences(path: Path, num_rows: int, seed: int = 0) -> Path:
    """Writes a tsv with the columns text and label (1 where good words prevail, else 0), of 3 to 14 words a row; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in tiny_rows(num_rows, seed)), encoding="utf-8")
    return path


def tiny_lines(path: Path, num_rows: int, seed: int = 0) -> Path:
    """Writes a text a line; returns the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text, _ in tiny_rows(num_rows, seed)), encoding="utf-8")
    return path


def tiny_rows(num_rows: int, seed: int = 0) -> list[tuple[str, int]]:
    """Returns (text, label) pairs; labels alternate, so that they are balanced in any share of the rows."""
    source, rows = random.Random(seed), []
    for number in range(num_rows):
        label = number % 2
        words = source.choices(GOOD if label else BAD, k=source.randint(1, 4)) + source.choices(NEUTRAL, k=source.randint(2, 10))
        source.shuffle(words)
        rows.append((" ".join(words), label))
    return rows
