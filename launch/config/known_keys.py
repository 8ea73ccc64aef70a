"""The keys that a block of a configuration file knows, and the one that a person meant by an unknown key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from launch.config.errors import suggest
from launch.config.sections import Section
from launch.config.yaml_files import KeyPath, dotted

NAMES_ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "epochs": "train.duration",
    "num_epochs": "train.duration",
    "num_train_epochs": "train.duration",
    "max_epochs": "train.duration",
    "max_steps": "train.duration",
    "batch_size": "train.global_batch_size",
    "train_batch_size": "train.global_batch_size",
    "per_device_train_batch_size": "train.global_batch_size",
}
"""Names that people bring from other tools -> the key of an experiment."""

MOST_NAMESAKES = 2
"""More keys than this of one name are no hint."""


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Returns {key as written in a file: its field}."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def blocks_of(info: FieldInfo) -> list[type[BaseModel]]:
    """Returns the blocks of keys that may stand in a field; several only where a discriminator chooses."""
    return [kind for kind in get_args(info.annotation) or (info.annotation,) if isinstance(kind, type) and issubclass(kind, Section)]


def dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields the dotted key of every value and block below a model; behind a discriminator those of each kind.

    Of a mapping of blocks, whose names a person chooses, its own key alone.
    """
    for name, info in fields_of(model).items():
        yield prefix + name
        for block in () if get_origin(info.annotation) is dict else blocks_of(info):
            yield from dotted_keys(block, f"{prefix}{name}.")


def suggest_keys(key: KeyPath, parent: type[BaseModel] | None, model: type[BaseModel]) -> list[str]:
    """Returns what an unknown key of a file was meant to be: a key beside it by its last part alone, others dotted; [] if none is near.

    A name of another tool goes first, then the same name in another block, then the nearest name in this block.

    Args:
        key: where it stands in the file.
        parent: the block that it stands in; None: no block is known there.
        model: the whole file.
    """
    name, known = str(key[-1]), dict.fromkeys(dotted_keys(model))
    meant = NAMES_ELSEWHERE.get(name)
    if meant in known and meant != dotted(key):
        return [meant]
    namesakes = [other for other in known if other.rpartition(".")[2] == name and other != dotted(key)]
    if 0 < len(namesakes) <= MOST_NAMESAKES:
        return namesakes
    near = suggest(name, fields_of(parent)) if parent else None
    return [near] if near else []
