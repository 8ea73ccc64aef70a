"""Reads the splits of a data set, row by row accountable: csv, tsv, jsonl, parquet, and data sets of the hub.

Text files are read with the standard library, and their rows kept as Arrow (trainers.reading.columns): importing pandas or the `datasets`
library costs every start 0.5 to 0.9 s (measured warm, 2 cores), so the library is loaded only for what it alone can read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from launch.config.row_files import file_of_split
from launch.config.sources import HubName
from trainers.reading.columns import ArrowColumn, Indices
from trainers.reading.readers import read_file
from trainers.reading.rows import MAX_NAMED_ROWS, BadRows, Fields, Split, check_columns
from trainers.sources import MISSING_HUB_FIX, NOT_CACHED, hub_is_offline, locate, use_hub_cache_if_unreachable


def load_splits(data: Data, fields: Fields, bad_rows: BadRows) -> dict[str, Split]:
    """Returns the splits that the source itself has, each with the wanted columns.

    Raises:
        ConfigError: a source, file, split or column that is not there, or a split without rows; with on_bad_row `stop`, every broken row.
    """
    source = locate(data.source, "data.source")
    named = {"train": data.splits.train, "validation": data.splits.validation, "test": data.splits.test}
    wanted = {split: name for split, name in named.items() if name is not None}
    if isinstance(source, HubName):
        splits = _read_hub(source.name, source.configuration, data.source, wanted, fields)
    elif source.is_file():
        splits = _read_single_file(source, data, wanted, fields, bad_rows)
    else:
        splits = _read_folder(source, data, wanted, fields, bad_rows)
    bad_rows.check()
    for split, rows in splits.items():
        if not len(rows):
            what = Problem(f"the {split} split has no samples", rows.origin, f"data.splits.{split}")
            raise ConfigError(*bad_rows.problems[:MAX_NAMED_ROWS], what)
    return splits


def divide(splits: Mapping[str, Split], data: Data, seed: int, by: str | None = None, left_out: Sequence[str] = ()) -> dict[str, Split]:
    """Returns the splits after the fractions have been cut from train and each has been limited.

    A permutation of train's rows decides: its first part is validation, the next is test, and of the rest as many stay train as
    data.train_fraction says (a smaller share is part of a larger one); each part keeps the order of the source. It comes from numpy's
    RandomState, whose numbers are frozen for good (NEP 19), so the parts are disjoint and the same everywhere.

    Args:
        by: column of what must not be torn apart (an article, a speaker): its values are divided, and the rows follow.
        left_out: what the task has left out of the source so far, in words.

    Raises:
        ConfigError: a split without samples.
    """
    import numpy as np

    divided = dict(splits)
    fractions = {"validation": data.validation_fraction, "test": data.test_fraction}
    if any(fractions.values()) or data.train_fraction is not None:
        train = divided["train"]
        units = None if by is None else _units(train, by)
        order, start = np.random.RandomState(seed).permutation(len(train if units is None else units)), 0

        def rows(part: Indices) -> Split:
            return train.select(np.sort(part if units is None else np.concatenate([np.empty(0, np.int64), *(units[number] for number in part)])))

        for name, fraction in fractions.items():
            if fraction is not None:
                end = start + round(fraction * len(order))
                divided[name] = rows(order[start:end])
                start = end
        end = len(order) if data.train_fraction is None else start + round(data.train_fraction * (len(order) - start))
        divided["train"] = rows(order[start:end])
    for name, split in divided.items():
        if not len(split):
            fraction = (fractions | {"train": data.train_fraction}).get(name)
            whole = f"{len(splits['train'])} rows" if by is None else f"{len(_units(splits['train'], by))} different values of the column {by!r}"
            what = f"the {name} split has no samples" + (f": {fraction:g} of {whole} is none" if fraction else "")
            what += f"; left out: {', '.join(left_out)}" if left_out else ""
            raise ConfigError(Problem(what, where=split.origin, key=f"data.{name}_fraction" if fraction else f"data.splits.{name}"))
    if data.limit is not None:
        divided = {name: split.select(np.arange(min(data.limit, len(split)))) for name, split in divided.items()}
    return {name: divided[name] for name in ("train", "validation", "test") if name in divided}


def _units(train: Split, by: str) -> list[Indices]:
    """Returns the rows of each value in the column `by`."""
    import numpy as np

    members: dict[object, list[int]] = {}
    for index, value in enumerate(train.columns[by]):
        members.setdefault(value, []).append(index)
    return [np.array(rows) for rows in members.values()]


def _read_single_file(path: Path, data: Data, wanted: Mapping[str, str], fields: Fields, bad_rows: BadRows) -> dict[str, Split]:
    """A file is the train split; it has no others."""
    for split, name in wanted.items():
        if split != "train":
            fix = f"data.splits.{split}=null, and data.{split}_fraction=0.1 to cut one from it"
            raise ConfigError(Problem(f"{path} is one file and has no split {name!r}", key=f"data.splits.{split}", fix=fix))
    return {"train": read_file(path, data, fields, bad_rows)}


def _read_folder(folder: Path, data: Data, wanted: Mapping[str, str], fields: Fields, bad_rows: BadRows) -> dict[str, Split]:
    """Named files are read as they are, all or none; split names are left to the hub's rules for folders."""
    files = {split: file_of_split(folder, name, data) for split, name in wanted.items()}
    splits = {split: read_file(path, data, fields, bad_rows) for split, path in files.items() if path is not None}
    names = {split: name for split, name in wanted.items() if split not in splits}
    for split, name in names.items():
        if splits or Path(name).suffix or data.format not in ("auto", "hub"):
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
            allowed = f"a file of the folder: {there}" + ("" if split == "train" else "; or null")
            raise ConfigError(Problem(f"there is no {folder / name}", key=f"data.splits.{split}", allowed=allowed))
    return _read_hub(str(folder), None, str(folder), names, fields) if names else splits


def _read_hub(name: str, configuration: str | None, shown: str, wanted: Mapping[str, str], fields: Fields) -> dict[str, Split]:
    """Reads a data set of the hub, or a local folder laid out like one, with the `datasets` library."""
    is_remote = shown != name or not Path(name).is_dir()
    if is_remote:
        use_hub_cache_if_unreachable()
    import datasets

    datasets.utils.logging.set_verbosity_error()
    try:
        found = datasets.load_dataset(name, configuration)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if is_remote and hub_is_offline():
            reason = NOT_CACHED
        fix = MISSING_HUB_FIX if is_remote else "name the files: data.splits.train=FILE (csv, tsv, jsonl, parquet)"
        raise ConfigError(Problem(f"the data set {shown} cannot be loaded: {reason}", key="data.source", fix=fix)) from error
    splits = {}
    for split, split_name in wanted.items():
        if split_name not in found:
            raise ConfigError(Problem(f"{shown} has no split {split_name!r}", key=f"data.splits.{split}", allowed=f"{', '.join(found)}, or null"))
        rows = found[split_name]
        origin = f"{shown}, split {split_name}"
        check_columns(rows.column_names, fields, origin, None)
        features = {column: getattr(rows.features[column], "feature", rows.features[column]) for column in fields}  # of a list, what is in it
        class_names = {column: list(feature.names) for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
        columns = {column: ArrowColumn(rows.data.column(column).chunks) for column in fields}
        splits[split] = Split(columns, origin, range(len(rows)), is_text_file=False, class_names=class_names)
    return splits
