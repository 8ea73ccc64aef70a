"""Pictures on disk: listed once in an Arrow file, memory-mapped by every rank, changed as (seed, epoch, index) says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from launch.config.errors import FullrankError, Problem
from trainers.images.pictures import array_to_tensor, decode_picture, read_encoded
from trainers.images.scan import encoded_of
from trainers.reading.rows import Split

ROWS_PER_CHUNK = 1000
"""Rows of one record batch; the last may have fewer."""

Transform = Callable[[Tensor], Tensor]
T = TypeVar("T")


def write_pictures(
    path: Path, split: Split, column: str, labels: Sequence[Any], needs_pillow: Sequence[bool], label_kind: Any = None
) -> tuple[int, list[int] | None]:
    """Writes (image, label, needs_pillow) as an Arrow stream; returns the number of samples, and the shape of raw pixels [H, W, C] if they are.

    An image is a path, the bytes of a picture file, or raw pixels of one size.

    Args:
        label_kind: Arrow's type of a label; None: a class number.
    """
    import pyarrow as pa

    values = split.columns[column]
    first = values[0]
    shape = list(first.shape) if isinstance(first, np.ndarray) else None
    kind = pa.binary(int(np.prod(shape))) if shape else pa.string() if isinstance(encoded_of(first), str) else pa.large_binary()
    schema = pa.schema([("image", kind), ("label", label_kind or pa.int64()), ("needs_pillow", pa.bool_())])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, len(split), ROWS_PER_CHUNK):
            rows = range(start, min(start + ROWS_PER_CHUNK, len(split)))
            images = [values[row].tobytes() if shape else _stored(encoded_of(values[row]), kind) for row in rows]
            columns = [images, [labels[row] for row in rows], [bool(needs_pillow[row]) for row in rows]]
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array(v, f.type) for v, f in zip(columns, schema, strict=True)], schema=schema))
    return len(split), shape


def _stored(value: str | bytes, kind: Any) -> str | bytes:
    """A column that begins with paths holds paths; one that begins with bytes holds the bytes of all."""
    return value if str(kind) == "string" else read_encoded(value)


class PictureDataset(Dataset[dict[str, Any]]):
    """Samples of one split, by (epoch, index): `pixels`, uint8 [C, size, size], and `label`.

    Maps the file on first use, so that it pickles as a path. What is random about a sample is drawn from (seed, epoch, index),
    so it is the same for any number of ranks and workers, and after a resume.
    """

    def __init__(
        self, path: Path, num_samples: int, shape: Sequence[int] | None, channels: int, shortest_edge: int, transform: Transform, seed: int
    ) -> None:
        self.path = path
        self._num_samples, self._shape, self._channels, self._shortest_edge = num_samples, shape, channels, shortest_edge
        self._transform, self._seed = transform, seed
        self._chunks: list[Any] | None = None

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        pixels, label = self.read(index)
        with_seed = sample_seed(self._seed, epoch, index)
        return {"pixels": seeded(self._transform, pixels, with_seed), "label": label}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chunks": None}

    def read(self, index: int) -> tuple[Tensor, Any]:
        """Returns the picture before it is scaled or cut, uint8 [C, H, W], and its label: a class number, or what else was written.

        Raises:
            FullrankError: the file is gone or has changed since it was looked at.
        """
        if not 0 <= index < self._num_samples:
            raise IndexError(f"sample {index} of {self._num_samples} in {self.path}")
        number, row = divmod(index, ROWS_PER_CHUNK)
        images, labels, needs_pillow = self._mapped()[number]
        label = labels[row].as_py()
        if self._shape:
            pixels = np.frombuffer(images[row].as_buffer(), dtype=np.uint8).reshape(self._shape)
            return array_to_tensor(pixels, self._channels), label
        value = images[row].as_py()
        try:
            return decode_picture(read_encoded(value), self._channels, self._shortest_edge, needs_pillow[row].as_py()), label
        except (OSError, ValueError, SyntaxError) as error:
            where = value if isinstance(value, str) else f"{self.path}, row {index}"
            what = f"could be read when the data was prepared, and cannot now: {error}"
            raise FullrankError(Problem(what, where, fix="leave the data as it is while it is trained on, or start a new run")) from error

    def file(self, index: int) -> Path | None:
        """Returns the file that a picture is; None: it stands in a table or among others in one file."""
        number, row = divmod(index, ROWS_PER_CHUNK)
        value = None if self._shape else self._mapped()[number][0][row].as_py()
        return Path(value) if isinstance(value, str) else None

    def _mapped(self) -> list[Any]:
        if self._chunks is None:
            import pyarrow as pa

            reader = pa.ipc.open_stream(pa.memory_map(str(self.path)))
            self._chunks = [tuple(batch.columns) for batch in reader]
        return self._chunks


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Returns 63 bits that are as good as random for each (seed, epoch, index)."""
    digest = hashlib.blake2b(f"{seed} {epoch} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded(transform: Callable[[T], T], pixels: T, seed: int) -> T:
    """Returns the changed pixels (and what changes with them); the global state, which torchvision's transforms draw from, is as before afterwards.

    Of the default generator alone: torch.manual_seed inside torch.random.fork_rng does the same in 230 us instead of 3 (measured).
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        return transform(pixels)
    finally:
        torch.set_rng_state(state)


def collate_pictures(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Returns pixels, uint8 [B, C, size, size], and labels, int64 [B]."""
    return {"pixels": torch.stack([sample["pixels"] for sample in samples]), "labels": torch.tensor([sample["label"] for sample in samples])}
