"""What every task of texts asks of its rows, its tokenizer and its prepared data."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

from launch.config.errors import ConfigError, Problem
from launch.config.prepared import INFO_FILE
from launch.config.run_dir import read_json
from trainers.models.pretrained import load_config

TEXTS_AT_ONCE = 1000
"""Given to the tokenizer together: its answer weighs about 100 bytes a token until it is taken apart."""


def text_problem(column: str, text: object) -> str | None:
    """Returns what is wrong with a value that should be a text, None if nothing is."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"the {column} is empty"
    if not isinstance(text, str):
        return f"the {column} {text!r} is not a text"
    return None if any(map(_is_seen, text)) else f"the {column} {text!r} has nothing in it that can be seen"


def _is_seen(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")  # controls; joiners, marks of direction


def tokenizers_version() -> str:
    """Returns the version of the tokenizers library: another may cut texts into other tokens."""
    return importlib.metadata.version("tokenizers")


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """Returns what prepared data keeps of the tokenizer that made it, whose threads are done then."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns at every fork of a data worker otherwise
    return {"pad_token_id": tokenizer.pad_token_id, "padding_side": tokenizer.padding_side, "tokenizers": tokenizers_version()}


def is_whole(folder: Path) -> bool:
    """Returns whether prepared data is complete, and made by this version of the tokenizers library (`tokenizers` in its facts)."""
    info = read_json(folder / INFO_FILE)
    return info is not None and info.get("tokenizers") == tokenizers_version()


def progress_bar(num_rows: int) -> Any:
    """Returns a progress bar on a terminal; nothing elsewhere (a rank's log)."""
    from tqdm import tqdm

    return tqdm(total=num_rows, desc="tokenising", unit=" rows", file=sys.stderr, disable=None, leave=False)


def check_positions(key: str, length: int, source: str, tokenizer: Any) -> int:
    """Returns the most tokens that the model has positions for; raises ConfigError if they are fewer than `length`."""
    longest = min(limit for limit in (getattr(load_config(source), "max_position_embeddings", None), tokenizer.model_max_length) if limit is not None)
    if length > longest:
        raise ConfigError(Problem(f"{length} tokens, but the model {source} reads at most {longest}", key=key, fix=f"{key}={longest}"))
    return int(longest)
