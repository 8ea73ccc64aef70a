"""Tokenised samples on disk: written once as Arrow, memory-mapped by every rank, padded into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainers.reading.columns import Indices

ROWS_PER_CHUNK = 10_000
"""Rows of one record batch; the last may have fewer."""

NO_LABEL = -100
"""What torch's cross-entropy leaves out."""

Chunk = dict[str, np.ndarray[Any, Any]]


def write_tokens(path: Path, chunks: Iterator[dict[str, list[Any]]]) -> int:
    """Writes chunks of ROWS_PER_CHUNK samples as an Arrow stream, and returns how many samples that were.

    Columns: one number a sample (label; whole numbers, or values), and lists of whole numbers. `datasets.Dataset.from_file` reads the file too.
    """
    import pyarrow as pa

    num_samples, writer = 0, None
    with pa.OSFile(str(path), "wb") as file:
        for chunk in chunks:
            arrays = {name: pa.array(values, _type_of(values)) for name, values in chunk.items()}
            batch = pa.RecordBatch.from_pydict(arrays)
            writer = writer or pa.ipc.new_stream(file, batch.schema)
            writer.write_batch(batch)
            num_samples += batch.num_rows
        if writer is not None:
            writer.close()
    return num_samples


class TokenDataset(Dataset[dict[str, Any]]):
    """Samples of one split, by (epoch, index); maps the file on first use, so that it pickles as a path."""

    def __init__(self, path: Path, num_samples: int) -> None:
        self.path = path
        self._num_samples = num_samples
        self._chunks: list[Chunk] | None = None

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        _, index = key
        if not 0 <= index < self._num_samples:
            raise IndexError(f"sample {index} of {self._num_samples} in {self.path}")
        number, row = divmod(index, ROWS_PER_CHUNK)
        chunk = self._mapped()[number]
        sample: dict[str, Any] = {}
        for name, values in chunk.items():
            offsets = chunk.get(f"{name}/offsets")
            if offsets is not None:
                sample[name] = values[offsets[row] : offsets[row + 1]]
            elif not name.endswith("/offsets"):
                sample[name] = values[row].item()
        return sample

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chunks": None}

    def lengths(self, name: str = "input_ids") -> Indices:
        """Returns the tokens of each sample, or the values of another list."""
        return np.concatenate([np.diff(chunk[f"{name}/offsets"]) for chunk in self._mapped()]).astype(np.int64)

    def _mapped(self) -> list[Chunk]:
        if self._chunks is None:
            import pyarrow as pa

            reader = pa.ipc.open_stream(pa.memory_map(str(self.path)))
            self._chunks = [_arrays(batch) for batch in reader]
        return self._chunks


@dataclass(frozen=True)
class PadTokens:
    """Collates samples into one batch, padded to the longest.

    Returns input_ids, attention_mask (and token_type_ids for pairs), int64 [B, T], and labels: int64 [B], or float32 [B] if they are values.
    Other lists are padded with -100, each to the longest of its kind.
    """

    pad_token_id: int
    padding_side: str = "right"

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = {name: self._padded(name, samples) for name in samples[0] if name != "label"}
        batch["attention_mask"] = self._rows([np.ones(len(sample["input_ids"]), np.int64) for sample in samples], 0)
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        return tensors | {"labels": torch.tensor([sample["label"] for sample in samples])} if "label" in samples[0] else tensors

    def _padded(self, name: str, samples: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
        return self._rows([sample[name] for sample in samples], {"input_ids": self.pad_token_id, "token_type_ids": 0}.get(name, NO_LABEL))

    def _rows(self, lists: list[np.ndarray[Any, Any]], fill: int) -> np.ndarray[Any, Any]:
        width = max(map(len, lists))
        rows = np.full((len(lists), width), fill, np.int64)
        for row, values in zip(rows, lists, strict=True):
            row[slice(0, len(values)) if self.padding_side == "right" else slice(width - len(values), width)] = values
        return rows


def _type_of(values: list[Any]) -> Any:
    import pyarrow as pa

    if isinstance(values[0], float):
        return pa.float64()
    return pa.int64() if isinstance(values[0], int) else pa.list_(pa.int32())


def _arrays(batch: Any) -> Chunk:
    """Returns a record batch as numpy arrays that share its memory."""
    chunk: Chunk = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if not hasattr(column, "offsets"):
            chunk[name] = _view(column, np.float64 if str(column.type) == "double" else np.int64)
        else:
            chunk[name] = _view(column.values, np.int32)
            chunk[f"{name}/offsets"] = _view(column.offsets, np.int32)
    return chunk


def _view(array: Any, dtype: type[np.generic]) -> np.ndarray[Any, Any]:
    """Returns an Arrow array without nulls as numpy; its own to_numpy imports pandas, 0.5 s."""
    return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]
