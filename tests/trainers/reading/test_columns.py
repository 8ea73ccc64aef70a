from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from launch.config.errors import ConfigError
from trainers.reading import columns
from trainers.reading.columns import ArrowColumn, Selected, select, store_batches, store_rows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stored(num_rows: int) -> tuple[dict[str, ArrowColumn], ArrowColumn]:
    return store_rows(((line, [f"text {line}", str(line % 2)]) for line in range(1, num_rows + 1)), ["text", "label"])


@pytest.mark.parametrize("rows_a_batch", [3, 5, 7, 100])
def test_rows_come_back_in_their_order_whatever_the_batches(rows_a_batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAX_BATCH_ROWS", rows_a_batch)
    found, lines = stored(10)
    texts = [f"text {line}" for line in range(1, 11)]
    assert list(found["text"]) == texts
    assert [found["text"][index] for index in range(10)] == texts
    assert (found["text"][-1], found["text"][2:8:2], len(lines), list(lines)) == (texts[-1], texts[2:8:2], 10, list(range(1, 11)))
    with pytest.raises(IndexError, match="row 10 of 10"):
        found["text"][10]


def test_a_batch_ends_at_long_texts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAX_BATCH_CHARS", 10)
    sizes = [len(batch) for batch in columns._batches(((line, ["x" * 4]) for line in range(7)), 1)]
    assert sizes == [3, 3, 1]


def test_nothing_stays_behind_in_the_cache(cache: Path) -> None:
    found, _ = stored(5)
    assert list((cache / "rows").iterdir()) == []
    assert found["text"][4] == "text 5"  # still readable: the file has lost its name only


def test_a_source_that_fails_while_it_is_read_leaves_nothing_behind_either(cache: Path) -> None:
    def rows() -> Iterator[tuple[int, list[str]]]:
        yield 1, ["a"]
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        store_rows(rows(), ["text"])
    assert not list(cache.rglob("*.arrow"))


def test_no_rows_are_empty_columns() -> None:
    found, lines = store_rows(iter(()), ["text"])
    assert (len(found["text"]), list(found["text"]), list(lines)) == (0, [], [])
    assert store_batches(iter(()), 2) == [[], []]


def test_values_are_decoded_on_the_way_out() -> None:
    found, _ = store_rows(((line, [json.dumps(value)]) for line, value in enumerate([1, "1", None, [2.5], {"a": True}])), ["mixed"], json.loads)
    assert list(found["mixed"]) == [found["mixed"][index] for index in range(5)] == [1, "1", None, [2.5], {"a": True}]


def test_a_choice_from_a_choice_is_one_choice() -> None:
    twice = select(select("abcdef", np.array([5, 3, 1, 0])), np.array([2, 0]))
    assert isinstance(twice, Selected)
    assert (list(twice), twice[1], twice[:1], twice.values) == (["b", "f"], "f", ["b"], "abcdef")


def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"file/rows: the rows cannot be written: Not a directory\n    try: FULLRANK_CACHE=DIR with room"):
        stored(1)


WRITE_WITHOUT_ROOM = """
import resource
from launch.config.errors import ConfigError
from trainers.reading.columns import store_rows

resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, -1))
try:
    store_rows(((line, ["x" * 1000]) for line in range(100_000)), ["text"])
except ConfigError as error:
    print(error)
"""


def test_a_disk_that_becomes_full_names_the_cache_and_leaves_nothing_in_it(cache: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", WRITE_WITHOUT_ROOM], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert ended.stdout.startswith(f"{cache}/rows: the rows cannot be written: File too large\n    try: FULLRANK_CACHE=DIR with room"), ended.stderr
    assert list((cache / "rows").iterdir()) == []


READ_WITH_LITTLE_MEMORY = """
import resource, sys
from launch.config.data import Data
from trainers.datasets import divide, load_splits
from trainers.reading.rows import BadRows

def read(path):
    data = Data.model_validate({"source": path, "splits": {"validation": None}, "validation_fraction": 0.1})
    return divide(load_splits(data, {"text": "task.text", "label": "task.label"}, BadRows("stop")), data, seed=0)

read(sys.argv[1])  # imports, and the memory that any file needs
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + int(sys.argv[3]), -1))
splits = read(sys.argv[2])
print(len(splits["train"]), sum(map(len, splits["train"].columns["text"])) + sum(map(len, splits["validation"].columns["text"])))
"""


@pytest.mark.integration
@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
def test_a_file_larger_than_the_memory_that_may_be_used_is_read(ending: str, tmp_path: Path) -> None:
    """RLIMIT_DATA counts private memory alone: pages of a mapped file are the kernel's to drop."""
    num_rows, text = 50_000, "word " * 200
    written(tmp_path / f"small.{ending}", 10_000, text)
    large = written(tmp_path / f"large.{ending}", num_rows, text)
    limit = 24 * 2**20
    assert large.stat().st_size > 1.9 * limit or ending == "parquet"
    arguments = [sys.executable, "-c", READ_WITH_LITTLE_MEMORY, str(tmp_path / f"small.{ending}"), str(large), str(limit)]
    ended = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert ended.stdout.split() == ["45000", str(num_rows * len(text))], ended.stderr


def written(path: Path, num_rows: int, text: str) -> Path:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        batch = pa.table({"label": [1] * 10_000, "text": [text] * 10_000})
        with pyarrow.parquet.ParquetWriter(path, batch.schema, use_dictionary=False) as writer:
            for _ in range(num_rows // 10_000):
                writer.write_table(batch)
        return path
    with path.open("w") as file:
        if path.suffix == ".tsv":
            file.write("label\ttext\n")
        row = f"1\t{text}\n" if path.suffix == ".tsv" else json.dumps({"label": 1, "text": text}) + "\n"
        for _ in range(num_rows):
            file.write(row)
    return path
