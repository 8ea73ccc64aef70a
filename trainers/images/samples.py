"""Samples of a task that looks at whole pictures: found and looked at once, then the same for every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks import Pictures
from trainers.data_facts import prepare_once, write_facts
from trainers.datasets import divide
from trainers.images.dataset import PictureDataset, collate_pictures, write_pictures
from trainers.images.networks import find_statistics
from trainers.images.readers import load_pictures
from trainers.images.scan import Scan, scan_pictures
from trainers.images.transforms import build_evaluation_transform, build_training_transform, shortest_edge
from trainers.reading.rows import BadRows, Split
from trainers.reports.rendering import code
from trainers.tasks import Batch, Sample
from trainers.tasks.labels import Labels, missing_classes, read_labels

_NUM_PARTS = 3
"""Of the path of a picture, that a report shows: split, class and name, in most data sets."""


def prepared(experiment: Experiment) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of the prepared data and its facts."""
    return prepare_once(experiment, prepare)


class PictureSamples:
    """The half of trainers.tasks.Task that does not depend on what is learned of the pictures."""

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, Pictures)
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint = info.get("fingerprint")
        self.label_names: list[str] = info["label_names"]
        self.notes: list[str] = list(info["notes"])
        self.collate = collate_pictures
        self.options = experiment.task
        self._shapes: dict[str, list[int] | None] = info["shapes"]
        self._experiment = experiment
        self._folder = folder

    @cached_property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel that pixels are normalised with."""
        options = self.options
        if options.mean is not None and options.std is not None:
            return options.mean, options.std
        return find_statistics(self._experiment.model, options.channels)

    def dataset(self, split: str) -> Dataset[Sample]:
        return self.pictures(split)

    def pictures(self, split: str) -> PictureDataset:
        """Returns the pictures of a split as training sees them, or an evaluation."""
        options = self.options
        return PictureDataset(
            self._folder / f"{split}.arrow",
            self.num_samples[split],
            self._shapes[split],
            options.channels,
            shortest_edge(options),
            build_training_transform(options) if split == "train" else build_evaluation_transform(options),
            self._experiment.seed,
        )

    def lengths(self, split: str) -> None:
        """All pictures cost the same."""
        return

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        """Pictures have no padding, and no tokens."""
        return 0, 0

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        """Writes the picture as the network sees it in an evaluation, and returns a link to it in Markdown, with its file's name and folders."""
        from PIL import Image

        pictures = self.pictures(split)
        pixels, _ = pictures.read(index)
        path = folder / f"{split}-{index}.png"
        folder.mkdir(parents=True, exist_ok=True)
        shown = build_evaluation_transform(self.options)(pixels)
        Image.fromarray(shown.permute(1, 2, 0).squeeze(-1).numpy()).save(path)
        file = pictures.file(index)
        name = f" {code('/'.join(file.parts[-_NUM_PARTS:]))}" if file else ""
        return f"![{split} {index}]({folder.name}/{path.name}){name}"


def prepare(experiment: Experiment, folder: Path) -> None:
    """Finds the pictures of every split, looks at each once, and writes where they are into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad row.
    """
    options, data = experiment.task, experiment.data
    assert isinstance(options, Pictures)
    bad_rows = BadRows(data.on_bad_row)
    splits, notes = load_pictures(data, options, bad_rows)
    labels = read_labels(splits, options, bad_rows)
    _refuse_unseen_classes(splits, labels)
    scan = scan_pictures(splits, options.image, shortest_edge(options), options.channels, bad_rows)
    bad_rows.check()
    rows = divide({name: _usable(split, name, labels, scan, options) for name, split in splits.items()}, data, experiment.seed)
    num_samples, shapes = {}, {}
    for name, split in rows.items():
        path = folder / f"{name}.arrow"
        num_samples[name], shapes[name] = write_pictures(path, split, options.image, split.columns[options.label], split.columns[_NEEDS_PILLOW])
    notes += [f"{count} pictures {what}" for what, count in scan.conversions.most_common()]
    notes += missing_classes(set(rows["train"].columns[options.label]), labels.names, data.limit)
    write_facts(folder, num_samples, notes, bad_rows, "pictures", shapes=shapes, label_names=labels.names)


_NEEDS_PILLOW = "needs_pillow"


def _usable(split: Split, name: str, labels: Labels, scan: Scan, options: Pictures) -> Split:
    """Returns the rows that have a class and a picture, with the class number as label."""
    numbers: Sequence[int | None] = labels.numbers[name]
    is_usable = np.array([number is not None for number in numbers], dtype=bool) & scan.is_usable[name]
    columns = {options.image: split.columns[options.image], options.label: numbers, _NEEDS_PILLOW: scan.needs_pillow[name]}
    return replace(split, columns=columns).select(np.flatnonzero(is_usable))


def _refuse_unseen_classes(splits: Mapping[str, Split], labels: Labels) -> None:
    """Raises ConfigError where a split has classes that train lacks: no training could ever tell them apart."""
    trained = set(labels.numbers["train"])
    problems = []
    for name, split in splits.items():
        unseen = [labels.names[number] for number in sorted({n for n in labels.numbers[name] if n is not None} - trained)]
        if unseen:
            what = f"the {name} split has classes that train lacks: {', '.join(unseen[:20])}"
            problems.append(Problem(what, split.origin, f"data.splits.{name}", fix="pictures of them in train, or none in the other splits"))
    if problems:
        raise ConfigError(*problems)
