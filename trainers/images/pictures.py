"""One picture: what is wrong with it, how it is decoded, and what it looks like as pixels."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image, UnidentifiedImageError
from torch import Tensor

LONGEST_EDGE = 65_000
"""No picture may be scaled to more: a strip of 1 x 10,000 pixels would become 224 x 2,240,000.

Asked for as the shortest edge of a decoded picture, it keeps every picture whole."""

_PLAIN_FORMATS = frozenset({"JPEG", "PNG"})
_DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_BROKEN = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError, EOFError, IndexError)
"""What Pillow raises for damaged files of one format or another."""


@dataclass(frozen=True)
class Finding:
    """What a look at a picture gave.

    Args:
        problem: why it cannot be used; None if it can.
        conversion: what is done to it on the way to 8-bit colours, in words; None: nothing.
        needs_pillow: whether only Pillow reads it rightly (or, for a huge JPEG, much faster).
        size: width and height in pixels; None where that is not known.
    """

    problem: str | None = None
    conversion: str | None = None
    needs_pillow: bool = False
    size: tuple[int, int] | None = None


def inspect_picture(encoded: bytes, shortest_edge: int, channels: int) -> Finding:
    """Returns what is to be known of a picture before training, after decoding it once.

    Args:
        shortest_edge: pixels that the decoded picture needs at least; a JPEG of twice that is decoded at a fraction of its size.
        channels: 1 or 3, what the network sees.
    """
    if not encoded:
        return Finding("the picture is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode, size, kind = image.mode, image.size, image.format
            image.draft("L", (1, 1))  # the eighth of a JPEG: reads every byte of it, computes little
            image.load()
    except UnidentifiedImageError:
        return Finding("cannot be decoded: it is in no picture format that Pillow knows")
    except _BROKEN as error:
        return Finding(f"cannot be decoded: {error}".replace("\n", " ")[:200])
    if max(size) * shortest_edge > LONGEST_EDGE * min(size):
        return Finding(f"{size[0]} x {size[1]} pixels is too narrow to be scaled")
    if mode in ("I", "F"):
        return Finding(f"32-bit pixels (mode {mode}) have no known range")
    is_huge = kind == "JPEG" and min(size) >= 2 * shortest_edge
    is_plain = kind in _PLAIN_FORMATS and mode in ("RGB", "L")
    return Finding(conversion=_conversion(mode, channels), needs_pillow=is_huge or not is_plain, size=size)


def decode_picture(encoded: bytes | bytearray, channels: int, shortest_edge: int, needs_pillow: bool) -> Tensor:
    """Returns the pixels, uint8 [C, H, W].

    torchvision's decoder is 2.4 times as fast as Pillow's (100 x 100 JPEG, measured). torchvision 0.29 announces that it will go;
    without it Pillow decodes everything.
    """
    with warnings.catch_warnings(action="ignore"):
        if not needs_pillow and hasattr(torchvision.io, "decode_image"):
            try:
                mode = torchvision.io.ImageReadMode.RGB if channels == 3 else torchvision.io.ImageReadMode.GRAY
                return torchvision.io.decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), mode)
            except RuntimeError:  # it is stricter than Pillow, which has read this picture once
                pass
        with Image.open(io.BytesIO(encoded)) as image:
            image.draft("RGB" if channels == 3 else "L", (shortest_edge, shortest_edge))
            return to_tensor(_converted(image, channels))


def to_tensor(image: Image.Image) -> Tensor:
    """Returns the pixels of a picture in RGB or L, uint8 [C, H, W]."""
    pixels = np.array(image)
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1).contiguous()


def array_to_tensor(pixels: Any, channels: int) -> Tensor:
    """Returns raw pixels, uint8 [H, W, 1 or 3], as uint8 [C, H, W] with the channels that are wanted."""
    if pixels.shape[2] != channels:
        return to_tensor(Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("RGB" if channels == 3 else "L"))
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def read_encoded(value: str | bytes | None) -> bytes:
    """Returns a picture's bytes, from its file or as they are."""
    if isinstance(value, str):
        return Path(value).read_bytes()
    return b"" if value is None else bytes(value)


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """Returns the picture in 8-bit RGB or L; 16 bits are scaled (Pillow's own conversion would cut them off at 255)."""
    if image.mode in _DEEP_MODES:
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB" if channels == 3 else "L")


def _conversion(mode: str, channels: int) -> str | None:
    if mode in _DEEP_MODES:
        return "have 16 bits a pixel, scaled to 8"
    if mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return "have an alpha channel, which is dropped"
    if channels == 3 and mode in ("L", "1"):
        return "have one channel and become RGB"
    if channels == 1 and mode not in ("L", "1"):
        return "have colours and become grey"
    return f"are in {mode} and become RGB" if mode not in ("RGB", "L", "1", "P") else None
