"""Experiments small enough to be trained hundreds of times, and how two runs of one are compared: every record, every tensor, every state."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from forked import read_records

from tests.tiny import tiny_bert, tiny_sentences

NOT_EXACT = ("time", "seconds", "attempt", "samples_per_second", "tokens_per_second", "real_token_share")
"""What a record says of its time and place; everything else must be the same to the last bit."""


def write_text_experiment(folder: Path, steps: int, **changes: Any) -> Path:
    """Writes an experiment on ragged sentences, with dropout, several micro-batches a step and an evaluation in mid-epoch; returns its file."""
    values = {
        "name": "tiny-text",
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.1},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32},
        "data": {
            "source": str(tiny_sentences(folder / "sentences.tsv", 203)),
            "splits": {"validation": None},
            "validation_fraction": 0.2,
            "test_fraction": 0.1,
        },
    }
    return _write(folder / "text.yaml", values | _shared(steps), changes)


def write_image_experiment(folder: Path, steps: int, **changes: Any) -> Path:
    """Writes an experiment on drawn pictures with random crops and flips; returns its file."""
    values = {
        "name": "tiny-image",
        "model": {"class": "trainers.architectures.small_cnn:SmallCnn", "kwargs": {"num_classes": 2, "size": 16, "dropout": 0.1}},
        "task": {"kind": "image_classification", "channels": 1, "size": 16, "crop": "random", "padding": 2, "flip": 0.5},
        "data": {
            "source": str(_pictures(folder / "pictures", 203)),
            "format": "image_folder",
            "splits": {"validation": None},
            "validation_fraction": 0.2,
            "test_fraction": 0.1,
        },
    }
    return _write(folder / "image.yaml", values | _shared(steps), {"train__group_by_length": False, **changes})


def differences(whole: Path, other: Path) -> list[str]:
    """Returns what two finished runs of one experiment do not have in common, the first of each kind."""
    found = []
    records, others = (
        [{key: value for key, value in record.items() if key not in NOT_EXACT} for record in read_records(run)] for run in (whole, other)
    )
    first = next((f"record {a} became {b}" for a, b in zip(records, others, strict=False) if a != b), None)
    if first or len(records) != len(others):
        found.append(first or f"{len(records)} records became {len(others)}")
    last = max(int(path.name.rpartition("-")[2]) for path in (whole / "checkpoints").glob("checkpoint-*"))
    folders = ("model", f"checkpoints/checkpoint-{last}")
    for name in [str(path.relative_to(whole)) for folder in folders for path in sorted((whole / folder).rglob("*.safetensors"))]:
        if not (other / name).is_file() or (whole / name).read_bytes() != (other / name).read_bytes():
            found.append(f"{name} differs")
    if not found:
        state, resumed = (torch.load(run / f"checkpoints/checkpoint-{last}/training_state.pt", weights_only=True) for run in (whole, other))
        found += [f"training_state.pt: {place}" for place in _unequal(state, resumed, "")][:1]
    return found


def _shared(steps: int) -> dict[str, Any]:
    return {
        "seed": 3,
        "train": {"duration": f"{steps} steps", "global_batch_size": 24, "micro_batch_size": 4},
        "optimizer": {"lr": 1e-3},
        "schedule": {"name": "cosine", "warmup": "10 %"},
        "evaluate": {"every": "5 steps", "metric": "loss", "mode": "min", "batch_size": 8},
        "checkpoint": {"every": "1000 steps"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }


def _write(path: Path, values: dict[str, Any], changes: Mapping[str, Any]) -> Path:
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section] = values[section] | {name: value} if name else value
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def _pictures(folder: Path, count: int) -> Path:
    """Draws small squares of noise, dark and light, a folder a class."""
    from PIL import Image

    source = random.Random(0)
    for number in range(count):
        label = ("dark", "light")[number % 2]
        (folder / "train" / label).mkdir(parents=True, exist_ok=True)
        low, high = ((0, 150), (100, 255))[number % 2]
        picture = Image.new("L", (16, 16))
        picture.putdata([source.randint(low, high) for _ in range(16 * 16)])
        picture.save(folder / "train" / label / f"{number:04d}.png")
    return folder


def _unequal(a: Any, b: Any, place: str) -> list[str]:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [place]
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return [found for key in a for found in _unequal(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, Sequence) and not isinstance(a, str) and isinstance(b, Sequence) and len(a) == len(b):
        return [found for number, pair in enumerate(zip(a, b, strict=True)) for found in _unequal(*pair, f"{place}/{number}")]
    return [] if a == b else [place]
