"""How large a model is, read from its files without torch: the safetensors header, else config.json and a formula."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from launch.config.run_dir import read_json

HeadKind = Literal["texts", "tokens", "words"]

MAX_HEADER_BYTES = 100_000_000
"""What the safetensors library itself accepts."""


@dataclass(frozen=True)
class Transformer:
    """The dimensions that activations follow."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class ModelSize:
    """Counts of parameters, whatever their type.

    Args:
        head: those of the modules that the pretrained files lack, which LoRA trains whole; 0: unknown, or none.
        trained: those that are not frozen.
        largest_layer: of the largest layer that is sharded by itself.
        outside_layers: embeddings, head: the root of what is sharded.
        transformer: None where the model is none, or its dimensions are unknown.
        origin: where the counts come from.
    """

    parameters: int
    trained: int
    largest_layer: int
    outside_layers: int
    transformer: Transformer | None
    origin: str
    head: int = 0


@dataclass(frozen=True)
class UnknownSize:
    """Why nobody can say how large a model is.

    Args:
        is_countable: torch could count it.
        key: of the experiment, whose value no model of these files can have; None: nothing is wrong.
        fix: what to type for the key instead.
    """

    reason: str
    is_countable: bool = False
    key: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Family:
    """How one kind of encoder is put together for classification of sequences.

    Args:
        prefix: of its parameters' names inside the whole model.
        has_pooler: the head's dense layer is part of the encoder (BERT), and in its files.
        names: config.json's names of number of layers, hidden size, heads, intermediate size.
    """

    prefix: str
    has_pooler: bool = False
    head_is_dense: bool = False
    has_token_types: bool = True
    names: tuple[str, str, str, str] = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")


FAMILIES: dict[str, Family] = {
    "bert": Family("bert", has_pooler=True),
    "roberta": Family("roberta", head_is_dense=True),
    "xlm-roberta": Family("roberta", head_is_dense=True),
    "camembert": Family("roberta", head_is_dense=True),
    "electra": Family("electra", head_is_dense=True),
    "distilbert": Family("distilbert", head_is_dense=True, has_token_types=False, names=("n_layers", "dim", "n_heads", "hidden_dim")),
}
"""config.json's model_type -> how its classifier is built. Source: transformers 5, models/*/modeling_*.py."""

_OLD_HEADS = ("cls.", "lm_head.", "classifier.", "pre_classifier.", "score.", "qa_outputs.", "vocab_", "discriminator_predictions.", "generator_")
"""Heads of another task in a pretrained file, which a new head replaces."""


def read_model_size(
    folder: Path, num_labels: int | None = None, frozen: Sequence[str] = (), head_kind: HeadKind = "texts"
) -> ModelSize | UnknownSize:
    """Returns the size of what is made of the model in a folder: a body with a new head.

    Args:
        num_labels: of the new head; None: as config.json says, else 2.
        frozen: shell patterns of the names that are not trained.
        head_kind: what the head judges: whole texts, each token, or the words that are guessed, whose head an old one may be.
    """
    config = read_json(folder / "config.json")
    if config is None:
        return UnknownSize(f"{folder} has no readable config.json")
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return UnknownSize(f"no formula for models of the type {config.get('model_type')!r}", is_countable=True)
    transformer = read_transformer(config, family)
    if transformer is None:
        return UnknownSize(f"{folder / 'config.json'} lacks one of {', '.join(family.names)}", is_countable=True)
    num_outputs = int(config["vocab_size"]) if head_kind == "words" else num_labels or len(config.get("id2label") or ()) or 2
    head = count_head(transformer.hidden_size, num_outputs, family, head_kind)
    has_pooler = family.has_pooler and head_kind == "texts"
    shapes = read_shapes(folder)
    if shapes is None:
        pooler = transformer.hidden_size * (transformer.hidden_size + 1) if family.has_pooler and not has_pooler else 0
        total = count_from_config(config, transformer, family) - pooler + head
        if frozen:
            return UnknownSize("what is frozen cannot be counted without the names in a .safetensors file", is_countable=True)
        layer = count_layer(transformer)
        outside = total - layer * transformer.num_layers
        return ModelSize(total, total, layer, outside, transformer, f"the formula for {config['model_type']} and {folder / 'config.json'}", head)
    counts = {_full_name(name, family): math.prod(shape) for name, shape in shapes.items() if not name.startswith(_OLD_HEADS)}
    new = head
    if not has_pooler:
        counts = {name: count for name, count in counts.items() if ".pooler." not in name}
    elif not any(".pooler." in name for name in counts):
        counts[f"{family.prefix}.pooler.dense"] = transformer.hidden_size * (transformer.hidden_size + 1)
        new += counts[f"{family.prefix}.pooler.dense"]
    size = size_of(counts | {"classifier": head}, frozen, f"the header of {folder / 'model.safetensors'}")
    return replace(size, transformer=transformer, head=new)


def read_body(folder: Path) -> tuple[str, dict[str, tuple[int, ...]] | None]:
    """Returns config.json's model_type, and the shapes of the parameters outside old heads; None where no safetensors file can be read."""
    config, shapes = json.loads((folder / "config.json").read_text(encoding="utf-8")), read_shapes(folder)
    body = None if shapes is None else {name: shape for name, shape in shapes.items() if not name.startswith(_OLD_HEADS)}
    return str(config.get("model_type")), body


def read_body_names(folder: Path) -> list[str]:
    """Returns the names of a body's parameters as they are inside a whole model; none where the family or the files are not known."""
    family = FAMILIES.get(str((read_json(folder / "config.json") or {}).get("model_type")))
    shapes = read_shapes(folder) if family else None
    return [_full_name(name, family) for name in shapes if not name.startswith(_OLD_HEADS)] if family and shapes else []


def size_of(counts: Mapping[str, int], frozen: Sequence[str], origin: str) -> ModelSize:
    """Returns the size behind {name: number of elements}; layers are what a number in the names counts."""
    layers: dict[str, int] = {}
    for name, count in counts.items():
        parts = name.split(".")
        number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
        if number is not None:
            key = ".".join(parts[: number + 1])
            layers[key] = layers.get(key, 0) + count
    total = sum(counts.values())
    is_frozen = {name: any(fnmatchcase(name, pattern) for pattern in frozen) for name in counts}
    return ModelSize(
        parameters=total,
        trained=sum(count for name, count in counts.items() if not is_frozen[name]),
        largest_layer=max(layers.values(), default=total),
        outside_layers=total - sum(layers.values()),
        transformer=None,
        origin=origin,
    )


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Returns {name: shape} of the parameters in a folder's safetensors files; None: there is none that can be read."""
    files = sorted(folder.glob("model*.safetensors"))
    headers = [read_header(path) for path in files]
    if not files or any(header is None for header in headers):
        return None
    tensors = {name: tensor for header in headers if header for name, tensor in header.items()}
    return {
        name: tuple(tensor["shape"])
        for name, tensor in tensors.items()
        if not name.endswith(("position_ids", "token_type_ids", "num_batches_tracked", "running_mean", "running_var"))
    }


def read_header(path: Path) -> dict[str, Any] | None:
    """Returns {tensor's name: {"dtype", "shape", "data_offsets"}}; None: not a safetensors file.

    Format: 8 bytes, little-endian length of the header; the header in JSON; the data. Source: the README of huggingface/safetensors.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER_BYTES:
                return None
            header = json.loads(file.read(length))
    except (OSError, ValueError):
        return None
    if not isinstance(header, dict):
        return None
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def read_transformer(config: Mapping[str, Any], family: Family) -> Transformer | None:
    """Returns the dimensions in a config.json, None where one is missing."""
    values = [config.get(name) for name in family.names]
    if not all(isinstance(value, int) and value > 0 for value in values):
        return None
    return Transformer(*(int(value or 0) for value in values))


def count_from_config(config: Mapping[str, Any], transformer: Transformer, family: Family) -> int:
    """Returns the parameters of the encoder alone, without its head.

    BERT (Devlin et al. 2019, and modeling_bert.py): embeddings (V + P + T) h and a LayerNorm 2h; the layers; the pooler h^2 + h.
    """
    hidden = transformer.hidden_size
    embedded = int(config.get("embedding_size", hidden))
    rows = int(config["vocab_size"]) + int(config.get("max_position_embeddings", 0))
    rows += int(config.get("type_vocab_size", 2)) if family.has_token_types else 0
    projection = embedded * hidden + hidden if embedded != hidden else 0
    pooler = hidden * (hidden + 1) if family.has_pooler else 0
    return rows * embedded + 2 * embedded + projection + transformer.num_layers * count_layer(transformer) + pooler


def count_layer(transformer: Transformer) -> int:
    """Returns the parameters of one layer: query, key, value, output 4 (h^2 + h); the two of the MLP 2hf + f + h; two LayerNorms 4h."""
    hidden, wide = transformer.hidden_size, transformer.intermediate_size
    return 4 * (hidden * hidden + hidden) + 2 * hidden * wide + wide + hidden + 4 * hidden


def count_head(hidden: int, num_labels: int, family: Family, kind: HeadKind = "texts") -> int:
    """Returns the parameters of a new head: of words a dense layer, a LayerNorm and a bias, because its matrix is that of the embeddings."""
    if kind == "words":
        return hidden * (hidden + 1) + 2 * hidden + num_labels
    if kind == "tokens":
        return (hidden + 1) * num_labels
    return hidden * num_labels + num_labels + (hidden * (hidden + 1) if family.head_is_dense else 0)


def _full_name(name: str, family: Family) -> str:
    return name if name.startswith(f"{family.prefix}.") else f"{family.prefix}.{name}"
