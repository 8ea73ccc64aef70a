"""What tells the data of one attempt from that of another: counts, a fingerprint, and the place a number of steps leads to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.config.experiment import Experiment
from launch.config.prepared import INFO_FILE, prepared_dir
from launch.config.run_dir import read_json, write_json
from trainers.once import make_once
from trainers.reading.rows import BadRows
from trainers.sampler import samples_consumed
from trainers.tasks import Task


def data_facts(task: Task) -> dict[str, Any]:
    """Returns `num_samples` of each split, and `fingerprint` where the task knows one; a task of one's own may have that attribute too."""
    fingerprint = getattr(task, "fingerprint", None)
    return {"num_samples": dict(task.num_samples)} | ({"fingerprint": fingerprint} if fingerprint else {})


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Returns a hash of files' contents: of prepared samples, in their order. Pictures that are kept as paths count by path and label."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def has_facts(folder: Path) -> bool:
    """Returns whether write_facts has been called on a folder."""
    return (folder / INFO_FILE).is_file()


def prepare_once(
    experiment: Experiment, prepare: Callable[[Experiment, Path], None], is_whole: Callable[[Path], bool] = has_facts
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of the prepared data and its facts; ranks that call this together share one preparation.

    Args:
        prepare: fills a folder, and ends with write_facts.
        is_whole: whether what lies in the folder may be used.

    Raises:
        ConfigError: as prepare.
    """
    folder = make_once(prepared_dir(experiment), is_whole, lambda folder: prepare(experiment, folder))
    info = read_json(folder / INFO_FILE)
    assert info is not None, folder
    return folder, info


def write_facts(folder: Path, num_samples: Mapping[str, int], notes: Sequence[str], bad_rows: BadRows, noun: str = "rows", **facts: Any) -> None:
    """Writes what a task has to know of its prepared data, last of all: a folder that has this file is whole.

    Args:
        num_samples: of each split, which lies in <split>.arrow.
        notes: what a person should know; the skipped rows are added, as so many `noun`.
    """
    info = {
        "num_samples": dict(num_samples),
        "fingerprint": fingerprint_files(folder / f"{name}.arrow" for name in num_samples),
        "notes": [*notes, *bad_rows.notes(noun)],
        "num_skipped": bad_rows.num_rows,
    }
    write_json(folder / INFO_FILE, info | facts)


def point_to_facts(experiment: Experiment, task: Task) -> None:
    """Writes the facts of a task that is made of other tasks' prepared data where the launcher looks for its own; any rank may."""
    folder = prepared_dir(experiment)
    if read_json(folder / INFO_FILE) != data_facts(task):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / INFO_FILE, data_facts(task))


def facts_to_compare(state: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns what a checkpoint says of its data, and the same of the data now.

    A checkpoint of before there were such facts says only how many samples its steps saw; that of the data now follows from its size.
    """
    if "data" in state:
        return state["data"], now
    size = state["experiment"].get("train", {}).get("global_batch_size")
    if not size:
        return {}, now
    name = "samples_consumed"
    return {name: state[name]}, {name: samples_consumed(state["step"], now["num_samples"]["train"], size)}
