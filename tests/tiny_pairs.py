"""Pairs of texts small enough for a test: the target is the text without its neutral words; and a T5 to learn them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import BAD, GOOD, tiny_bert, tiny_rows

TINY_T5: dict[str, Any] = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}


def tiny_pairs(path: Path, num_rows: int) -> Path:
    """Writes a tsv with the columns text and target; returns its path."""
    strong = {*GOOD, *BAD}
    rows = [(text, " ".join(word for word in text.split() if word in strong)) for text, _ in tiny_rows(num_rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text\ttarget\n" + "".join(f"{text}\t{target}\n" for text, target in rows), encoding="utf-8")
    return path


def tiny_t5(folder: Path) -> dict[str, Any]:
    """Returns the model section of a T5 from random weights, with the tokenizer of a tiny BERT that it writes into `folder`."""
    return {"source": str(tiny_bert(folder)), "config": TINY_T5}
