"""Columns that need not fit into memory: written as Arrow while a source is read, memory-mapped afterwards."""

from __future__ import annotations

import itertools
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from launch.config.errors import ConfigError, Problem
from launch.config.sources import cache_root

MAX_BATCH_ROWS = 10_000
MAX_BATCH_CHARS = 2**22
"""A record batch ends at the first of the two, so that long texts do not fill the memory either."""

Indices = NDArray[np.int64]
Decode = Callable[[Any], Any]


class ArrowColumn(Sequence[Any]):
    """The values of one column over several Arrow arrays, read from the file where they are asked for."""

    def __init__(self, chunks: Sequence[Any], decode: Decode | None = None) -> None:
        self._chunks, self._decode = list(chunks), decode
        self._ends = list(itertools.accumulate(map(len, self._chunks)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = bisect_right(self._ends, place)
        chunk = self._chunks[number]
        value = chunk[place - self._ends[number] + len(chunk)].as_py()
        return self._decode(value) if self._decode else value

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._chunks:
            for start in range(0, len(chunk), MAX_BATCH_ROWS):
                values = chunk.slice(start, MAX_BATCH_ROWS).to_pylist()
                yield from map(self._decode, values) if self._decode else values


class Selected(Sequence[Any]):
    """Some rows of a column, in an order of their own: 8 bytes a row, whatever the values weigh."""

    def __init__(self, values: Sequence[Any], indices: Indices) -> None:
        self.values, self.indices = values, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self.values[place] for place in self.indices[index].tolist()]
        return self.values[int(self.indices[index])]


def select(values: Sequence[Any], indices: Indices) -> Selected:
    """Returns these rows of a column; a choice from a choice is one choice."""
    return Selected(values.values, values.indices[indices]) if isinstance(values, Selected) else Selected(values, indices)


def store_rows(
    rows: Iterable[tuple[int, Sequence[str]]], names: Sequence[str], decode: Decode | None = None
) -> tuple[dict[str, ArrowColumn], ArrowColumn]:
    """Returns the columns, and the number (line) of each row, after writing the rows away as they come.

    Raises:
        ConfigError: the cache cannot be written.
    """
    *columns, numbers = store_batches(_batches(rows, len(names)), len(names) + 1)
    return {name: ArrowColumn(chunks, decode) for name, chunks in zip(names, columns, strict=True)}, ArrowColumn(numbers)


def store_batches(batches: Iterator[Any], num_columns: int) -> list[list[Any]]:
    """Returns the chunks of each column after writing Arrow record batches into a file that is mapped and has no name.

    It lies in the cache, not in TMPDIR, which is often memory. Nothing stays behind: the name is deleted when the file is
    written, and the bytes are freed with the last chunk.

    Raises:
        ConfigError: the cache cannot be written.
    """
    import pyarrow as pa

    first = next(batches, None)
    if first is None:
        return [[] for _ in range(num_columns)]
    folder = cache_root() / "rows"
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(suffix=".arrow", dir=folder)  # noqa: SIM115 (reading the source must not look like writing)
    with file:
        writer = pa.ipc.new_stream(file, first.schema)
        for batch in itertools.chain([first], batches):
            with _writing(folder):
                writer.write_batch(batch)
        with _writing(folder):
            writer.close()
            file.flush()
        table = pa.ipc.open_stream(pa.memory_map(file.name)).read_all()
    return [table.column(number).chunks for number in range(num_columns)]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"the rows cannot be written: {error.strerror or error}"
        raise ConfigError(Problem(what, where=str(folder), fix="FULLRANK_CACHE=DIR with room and write permission")) from error


def _batches(rows: Iterable[tuple[int, Sequence[str]]], num_columns: int) -> Iterator[Any]:
    """Yields record batches of the texts, and as last column the rows' numbers."""
    import pyarrow as pa

    numbers: list[int] = []
    columns: list[list[str]] = [[] for _ in range(num_columns)]
    num_chars = 0

    def batch() -> Any:
        arrays = [*map(_text_array, columns), _array(pa.int64(), len(numbers), np.array(numbers, np.int64))]
        return pa.RecordBatch.from_arrays(arrays, names=[str(number) for number in range(len(arrays))])

    for number, values in rows:
        numbers.append(number)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
            num_chars += len(value)
        if len(numbers) >= MAX_BATCH_ROWS or num_chars >= MAX_BATCH_CHARS:
            yield batch()
            numbers, columns, num_chars = [], [[] for _ in range(num_columns)], 0
    if numbers:
        yield batch()


def _text_array(texts: Sequence[str]) -> Any:
    """Returns texts as an Arrow array, whose 64-bit offsets allow a batch of more than 2 GiB."""
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return _array(pa.large_string(), len(encoded), offsets, b"".join(encoded))


def _array(kind: Any, length: int, *buffers: Any) -> Any:
    """Returns an Arrow array without nulls over these buffers; pyarrow.array(), given a list, imports pandas, 0.5 s."""
    import pyarrow as pa

    return pa.Array.from_buffers(kind, length, [None, *map(pa.py_buffer, buffers)])
