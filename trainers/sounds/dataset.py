"""Recordings on disk: samples and letters, written once as Arrow, memory-mapped by every rank, turned into frames where they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from trainers.images.dataset import sample_seed
from trainers.reading.columns import Indices
from trainers.sounds.features import MelBands, hide_stripes

ROWS_PER_CHUNK = 200
"""Rows of one record batch; the last may have fewer."""

Row = tuple[NDArray[np.int16], list[int]]
"""Samples of a recording, and the numbers of its letters."""


def write_recordings(path: Path, rows: Iterable[Row]) -> int:
    """Writes (samples, letters) as an Arrow stream, and returns how many rows that were."""
    import pyarrow as pa

    schema = pa.schema([("samples", pa.large_binary()), ("letters", pa.list_(pa.int32()))])
    num_rows = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for chunk in _chunked(rows):
            samples, letters = zip(*((samples.tobytes(), letters) for samples, letters in chunk), strict=True)
            arrays = [pa.array(samples, schema.field(0).type), pa.array(letters, schema.field(1).type)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            num_rows += len(chunk)
    return num_rows


class RecordingDataset(Dataset[dict[str, Any]]):
    """Samples of one split, by (epoch, index): `frames`, float32 [T, M], and `letters`, a list of numbers.

    Maps the file on first use, so that it pickles as a path. Which stripes are hidden is a function of (seed, epoch, index) alone.
    """

    def __init__(self, path: Path, num_samples: int, bands: MelBands, num_masks: int, mask_share: float, seed: int) -> None:
        self.path = path
        self._num_samples, self._bands, self._num_masks, self._mask_share, self._seed = num_samples, bands, num_masks, mask_share, seed
        self._chunks: list[tuple[Any, Any]] | None = None

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        if not 0 <= index < self._num_samples:
            raise IndexError(f"sample {index} of {self._num_samples} in {self.path}")
        number, row = divmod(index, ROWS_PER_CHUNK)
        samples, letters = self._mapped()[number]
        frames = self._bands(torch.frombuffer(bytearray(samples[row].as_buffer()), dtype=torch.int16))
        if self._num_masks:
            frames = hide_stripes(frames, self._num_masks, self._mask_share, sample_seed(self._seed, epoch, index))
        return {"frames": frames, "letters": letters[row].as_py()}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chunks": None}

    def lengths(self) -> Indices:
        """Returns the frames of each sample."""
        sizes = [len(sample.as_buffer()) // 2 for samples, _ in self._mapped() for sample in samples]
        return np.array([self._bands.num_frames(size) for size in sizes], dtype=np.int64)

    def _mapped(self) -> list[tuple[Any, Any]]:
        if self._chunks is None:
            import pyarrow as pa

            self._chunks = [tuple(batch.columns) for batch in pa.ipc.open_stream(pa.memory_map(str(self.path)))]
        return self._chunks


def collate_recordings(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Returns frames, float32 [B, T, M], and labels, int64 [B, L], both padded with 0 at the end; num_frames and num_letters, int64 [B]."""
    letters = [torch.tensor(sample["letters"]) for sample in samples]
    return {
        "frames": torch.nn.utils.rnn.pad_sequence([sample["frames"] for sample in samples], batch_first=True),
        "num_frames": torch.tensor([len(sample["frames"]) for sample in samples]),
        "labels": torch.nn.utils.rnn.pad_sequence(letters, batch_first=True),
        "num_letters": torch.tensor([len(numbers) for numbers in letters]),
    }


def _chunked(rows: Iterable[Row]) -> Iterable[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == ROWS_PER_CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
