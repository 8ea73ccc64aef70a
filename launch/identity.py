"""What two runs of one experiment do not have in common, bit by bit; reads records and weights without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.config.metrics import Record, read_metrics
from launch.config.run_dir import RunDir

NOT_EXACT = ("time", "seconds", "attempt", "samples_per_second", "tokens_per_second", "real_token_share")
"""What a record says of its time and its attempt, which no two runs share."""

_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    Args:
        where: `step 12, train` or `model/model.safetensors`.
        what: the metric, or the tensor.
    """

    where: str
    what: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.before} became {self.now}"


@dataclass(frozen=True)
class Comparison:
    """What was compared, and what was found."""

    num_records: int
    num_tensors: int
    differences: tuple[Difference, ...]


def compare_runs(whole: RunDir, other: RunDir) -> Comparison:
    """Compares every record of metrics.jsonl and every tensor of the final models, and of the last checkpoints."""
    records, others = read_metrics(whole.metrics), read_metrics(other.metrics)
    found, num_tensors = list(compare_records(records, others)), 0
    for name in _weight_files(whole, other):
        count, differing = compare_weights(whole.path / name, other.path / name, name)
        num_tensors += count
        found += differing
    return Comparison(len(records), num_tensors, tuple(found))


def compare_records(before: Sequence[Record], now: Sequence[Record]) -> Iterator[Difference]:
    """Yields every value that differs, and every record that only one of the two has, in the order of training."""
    mine, theirs = ({(record["step"], record["split"]): record for record in records} for records in (before, now))
    for place in dict.fromkeys([*mine, *theirs]):
        where = f"step {place[0]}, {place[1]}"
        if place not in mine or place not in theirs:
            yield Difference(where, "record", *("there" if place in records else "missing" for records in (mine, theirs)))
            continue
        for key in dict.fromkeys([*mine[place], *theirs[place]]):
            values = mine[place].get(key), theirs[place].get(key)
            if key not in NOT_EXACT and values[0] != values[1]:
                yield Difference(where, key, *values)
    for records, order in ((before, mine), (now, theirs)):
        if len(records) != len(order):
            yield Difference("metrics.jsonl", "records", f"{len(order)} steps", f"{len(records)} lines")


def compare_weights(before: Path, now: Path, name: str) -> tuple[int, list[Difference]]:
    """Returns the number of tensors in two safetensors files, and those that differ in shape, type or any bit."""
    if not before.is_file() or not now.is_file():
        return 0, [Difference(name, "file", *("there" if path.is_file() else "missing" for path in (before, now)))]
    mine, theirs = read_header(before), read_header(now)
    found = []
    for tensor in dict.fromkeys([*mine, *theirs]):
        facts = mine.get(tensor), theirs.get(tensor)
        if facts[0] is None or facts[1] is None:
            found.append(Difference(name, tensor, *("there" if fact else "missing" for fact in facts)))
        elif (facts[0].dtype, facts[0].shape) != (facts[1].dtype, facts[1].shape):
            found.append(Difference(name, tensor, *(f"{fact.dtype} {list(fact.shape)}" for fact in facts if fact)))
        elif not _same_bytes(before, facts[0], now, facts[1]):
            found.append(Difference(name, tensor, "one value", "another"))
    return len(mine), found


@dataclass(frozen=True)
class TensorFacts:
    """Where a tensor lies in its file, in bytes, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def read_header(path: Path) -> dict[str, TensorFacts]:
    """Returns the tensors of a safetensors file: 8 bytes of length (little endian), a JSON header, then the data.

    https://huggingface.co/docs/safetensors (format)
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: Mapping[str, Any] = json.loads(file.read(length))
    tensors = {}
    for name, facts in header.items():
        if name != "__metadata__":
            start, end = facts["data_offsets"]
            tensors[name] = TensorFacts(facts["dtype"], tuple(facts["shape"]), 8 + length + start, end - start)
    return tensors


def _same_bytes(before: Path, mine: TensorFacts, now: Path, theirs: TensorFacts) -> bool:
    with before.open("rb") as a, now.open("rb") as b:
        a.seek(mine.start)
        b.seek(theirs.start)
        left = mine.size
        while left > 0:
            size = min(left, _CHUNK_BYTES)
            if a.read(size) != b.read(size):
                return False
            left -= size
    return True


def _weight_files(whole: RunDir, other: RunDir) -> list[str]:
    """Returns the safetensors files of the final models and of the newest checkpoints, as paths below the run directories."""
    names: set[str] = set()
    for run in (whole, other):
        for folder in (run.model, run.newest_checkpoint()):
            names |= {str(path.relative_to(run.path)) for path in folder.glob("*.safetensors")} if folder else set()
    return sorted(names)
