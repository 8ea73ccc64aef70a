"""Samples of a task that learns what is where in a picture: found and checked once, then the same for every rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from trainers.data_facts import write_facts
from trainers.datasets import divide
from trainers.images.coco import IMAGE, OBJECTS, SIZE, Annotated, Annotation
from trainers.images.dataset import PictureDataset, write_pictures
from trainers.images.pictures import LONGEST_EDGE
from trainers.images.scan import scan_pictures
from trainers.reading.rows import BadRows, Split
from trainers.tasks import Batch
from trainers.tasks.labels import missing_classes

_TARGET, _NEEDS_PILLOW = "target", "needs_pillow"


class TargetReader(ABC):
    """Makes what is learned of a picture from what is annotated in it."""

    label_kind: Any
    """Arrow's type of a target."""

    @abstractmethod
    def read(self, split: str, picture: str, objects: Sequence[Annotation], size: tuple[int, int], say: Callable[[str | None, str], None]) -> Any:
        """Returns the target of a picture, None: it cannot be learned from.

        Args:
            size: width and height of the picture.
            say: told the place of an annotation (None: the picture itself) and what is wrong with it.
        """

    @abstractmethod
    def numbers_in(self, target: Any) -> set[int]:
        """Returns the class numbers that a target has."""


def write_annotated(
    experiment: Experiment, folder: Path, annotated: Annotated, reader: TargetReader, channels: int, label_names: Sequence[str], bad_rows: BadRows
) -> None:
    """Looks at each picture once, makes its target, and writes both into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad picture and annotation.
    """
    scan = scan_pictures(annotated.splits, IMAGE, 1, channels, bad_rows)
    usable, num_empty = {}, 0
    for name, split in annotated.splits.items():
        targets = [_target(split, name, row, reader, scan.sizes[name][row], bad_rows) for row in range(len(split))]
        num_empty += sum(target is None and is_usable for target, is_usable in zip(targets, scan.is_usable[name], strict=True))
        columns = {IMAGE: split.columns[IMAGE], _TARGET: targets, _NEEDS_PILLOW: scan.needs_pillow[name]}
        usable[name] = replace(split, columns=columns).select(np.flatnonzero([target is not None for target in targets]))
    bad_rows.check()
    left_out = [f"{num_empty} pictures with nothing that is learned in them"] if num_empty and not bad_rows.num_rows else []
    rows = divide(usable, experiment.data, experiment.seed, left_out=left_out)
    present = {number for target in rows["train"].columns[_TARGET] for number in reader.numbers_in(target)}
    if not present:
        raise ConfigError(Problem("no picture of the train split has anything that is learned", rows["train"].origin, "data.splits.train"))
    num_samples, shapes = {}, {}
    for name, split in rows.items():
        path = folder / f"{name}.arrow"
        needs_pillow = split.columns[_NEEDS_PILLOW]
        num_samples[name], shapes[name] = write_pictures(path, split, IMAGE, split.columns[_TARGET], needs_pillow, reader.label_kind)
    notes = [*annotated.notes, *(f"{count} pictures {what}" for what, count in scan.conversions.most_common())]
    notes += [f"{what} are left out" for what in left_out]
    notes += missing_classes(present, label_names, experiment.data.limit)
    write_facts(folder, num_samples, notes, bad_rows, "pictures or annotations", label_names=list(label_names))


class AnnotatedSamples:
    """The half of trainers.tasks.Task that does not depend on what is learned of annotated pictures."""

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any], channels: int) -> None:
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint: str = info["fingerprint"]
        self.label_names: list[str] = info["label_names"]
        self.notes: list[str] = list(info["notes"])
        self._experiment = experiment
        self._folder = folder
        self._channels = channels

    def lengths(self, split: str) -> None:
        """All pictures cost about the same."""
        return

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        """Pictures have no tokens."""
        return 0, 0

    def annotated(self, split: str) -> PictureDataset:
        """Returns the whole pictures of a split, to be read with their targets: every pixel is where its annotation says."""
        path, count = self._folder / f"{split}.arrow", self.num_samples[split]
        return PictureDataset(path, count, None, self._channels, LONGEST_EDGE, _unchanged, self._experiment.seed)


def _unchanged(pixels: Tensor) -> Tensor:
    return pixels


def _target(split: Split, name: str, row: int, reader: TargetReader, size: tuple[int, int] | None, bad_rows: BadRows) -> Any:
    """Returns the target of a picture; None where it, or its size, cannot be used."""
    picture, said = split.columns[IMAGE][row], split.columns[SIZE][row]
    if size is None:  # the scan has said why
        return None
    if said is not None and said != size:
        bad_rows.add(picture, f"is {size[0]} x {size[1]}, and {split.origin} says {said[0]} x {said[1]}: it is not the picture that was annotated")
        return None

    def say(place: str | None, what: str) -> None:
        bad_rows.add(f"{split.origin}: {place} (in {Path(picture).name})" if place else picture, what)

    return reader.read(name, picture, split.columns[OBJECTS][row], size, say)
