"""Cuts a smaller model out of a pretrained one: some of its layers, some of its words; what is left is a model's folder like any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from launch.config.errors import ConfigError, Problem
from launch.config.prepared import list_files
from launch.config.sources import HubName, cache_root
from trainers.models.pretrained import load_saved, load_tokenizer
from trainers.once import make_once
from trainers.sources import locate

FORMAT_VERSION = 1
"""Raised whenever students of an older fullrank would be other ones."""

_CONTINUES = "##"
"""How WordPiece marks a piece that does not begin a word."""

_OF_THE_WORDS = ("vocab", "vocab_file", "tokenizer_file", "tokenizer_object", "added_tokens_decoder", "name_or_path")
"""Settings of a tokenizer that another choice of words does not share."""


def cut_student(source: str, layers: Sequence[int] | None, used: Collection[int] | None) -> Path:
    """Returns the folder of a model that has some of the layers and words of another, made once and kept in the cache.

    Args:
        layers: which are kept, in this order, counted from 0; None: all.
        used: numbers of the pieces that are kept, beside special tokens and single letters; None: all.

    Raises:
        ConfigError: the source has no such layers, or its tokenizer is not WordPiece.
    """
    place = locate(source, "model.source")
    origin: list[Any] = [place.name] if isinstance(place, HubName) else [str(place), *list_files(place)]
    cut = {"version": FORMAT_VERSION, "origin": origin, "layers": layers, "used": None if used is None else sorted(used)}
    key = hashlib.sha256(json.dumps(cut, sort_keys=True).encode()).hexdigest()[:20]

    def make(folder: Path) -> None:
        network, tokenizer = load_saved(source), load_tokenizer(source)
        if layers is not None:
            keep_layers(network, layers, source)
        if used is not None:
            tokenizer, kept = cut_tokenizer(tokenizer, used, source)
            keep_words(network, kept)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return make_once(cache_root() / "students" / key, Path.is_dir, make)


def keep_layers(network: Any, layers: Sequence[int], source: str) -> None:
    """Leaves a model of transformers with these of its layers, in this order.

    Raises:
        ConfigError: there are no such layers.
    """
    stacks = [
        (parent, name, stack)
        for parent in network.modules()
        for name, stack in parent.named_children()
        if isinstance(stack, nn.ModuleList) and len(stack) == network.config.num_hidden_layers
    ]
    if len(stacks) != 1:
        what = f"the layers of {source} ({type(network).__name__}) cannot be told apart"
        raise ConfigError(Problem(what, key="task.layers", fix="task.layers=null"))
    ((parent, name, stack),) = stacks
    unknown = [number for number in layers if number >= len(stack)]
    if unknown or len(set(layers)) < len(layers):
        what = f"{source} has no layer {unknown[0]}" if unknown else "a layer stands there twice"
        raise ConfigError(Problem(what, key="task.layers", allowed=f"some of 0 to {len(stack) - 1}, each once"))
    setattr(parent, name, nn.ModuleList([stack[number] for number in layers]))
    network.config.num_hidden_layers = len(layers)


def keep_words(network: Any, kept: Sequence[int]) -> None:
    """Leaves a model of transformers with these rows of its word embeddings, in this order."""
    old = network.get_input_embeddings()
    new = nn.Embedding(len(kept), old.embedding_dim, padding_idx=None if old.padding_idx is None else list(kept).index(old.padding_idx))
    with torch.no_grad():
        new.weight.copy_(old.weight[list(kept)])
    network.set_input_embeddings(new)
    network.config.vocab_size = len(kept)
    network.config.pad_token_id = new.padding_idx


def cut_tokenizer(tokenizer: Any, used: Collection[int], source: str) -> tuple[Any, list[int]]:
    """Returns the tokenizer with a part of its words, and their old numbers in the order of the new ones.

    A text of the pieces that are kept is cut into the same ones as before: WordPiece takes the longest piece that it knows, and what it took
    is still there. A word that was known whole, or by longer pieces, is spelled with shorter ones.

    Raises:
        ConfigError: it is not a WordPiece tokenizer.
    """
    whole = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {"type": "slow"}}
    if whole["model"]["type"] != "WordPiece":
        what = f"the tokenizer of {source} is of the type {whole['model']['type']}, and only the words of a WordPiece tokenizer can be cut"
        raise ConfigError(Problem(what, key="task.vocabulary", fix="task.vocabulary=whole"))
    letters = {number for piece, number in tokenizer.get_vocab().items() if len(piece.removeprefix(_CONTINUES)) == 1}
    kept = sorted({*used, *letters, *tokenizer.all_special_ids})
    pieces = tokenizer.convert_ids_to_tokens(kept)
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name not in _OF_THE_WORDS}
    return type(tokenizer)(vocab={piece: number for number, piece in enumerate(pieces)}, **settings), kept
