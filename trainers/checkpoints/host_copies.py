"""Copies of a training's state in host memory, into the same buffers every time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Place = tuple[int, torch.Size, tuple[int, ...]]
"""What a tensor is of its memory: start, shape, strides."""


class HostCopies:
    """Deep copies for a save in the background, one at a time.

    The buffers stay: memory that is there already is copied into several times faster than memory that the system has to
    hand out first. They are pinned where the state is on a GPU, so that all copies run at once.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def take(self, state: Any) -> Any:
        """Returns a copy of nested mappings, lists and tensors; the one that was taken before is overwritten.

        Tensors that share memory (tied weights) share it in the copy too.
        """
        sources: list[Tensor] = []
        copy = self._copied(state, sources, {})
        del self._buffers[len(sources) :]
        if any(source.is_cuda for source in sources):
            torch.cuda.synchronize()
        return copy

    def _copied(self, value: Any, sources: list[Tensor], places: dict[Place, Tensor]) -> Any:
        if isinstance(value, Tensor):
            place = (value.data_ptr(), value.shape, value.stride())
            if value.numel() == 0 or place not in places:
                places[place] = self._into_buffer(value.detach(), len(sources))
                sources.append(value)
            return places[place]
        if isinstance(value, Mapping):
            return {key: self._copied(item, sources, places) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copied(item, sources, places) for item in value)
        return value

    def _into_buffer(self, tensor: Tensor, number: int) -> Tensor:
        if number == len(self._buffers):
            self._buffers.append(_buffer_for(tensor))
        elif (self._buffers[number].shape, self._buffers[number].dtype) != (tensor.shape, tensor.dtype):
            self._buffers[number] = _buffer_for(tensor)
        return self._buffers[number].copy_(tensor, non_blocking=tensor.is_cuda)


def _buffer_for(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
