"""Masks: the class of each pixel of a picture, drawn from outlines or read from a file, kept as PNG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from trainers.images.boxes import ROUNDING, is_numbers
from trainers.images.coco import Annotation
from trainers.images.transforms import IGNORED

Mask = NDArray[np.uint8]
"""uint8 [H, W]: class numbers, or IGNORED."""


def draw_mask(objects: Sequence[Annotation], numbers: Mapping[str, int], size: tuple[int, int], unlabelled: int) -> Mask:
    """Returns the class of each pixel.

    Crowds, and pixels of two categories, are ignored, as torchvision's reference does (references/segmentation/coco_utils.py).

    Args:
        objects: with outlines that have no problem.
        unlabelled: what pixels outside of all of them have.
    """
    mask = np.full((size[1], size[0]), unlabelled, np.uint8)
    is_drawn = np.zeros(mask.shape, bool)
    for thing in objects:
        inside, number = _inside(thing.outline, size), IGNORED if thing.is_crowd else numbers[thing.label]
        is_clash = inside & is_drawn & (mask != number)
        mask[inside] = number
        mask[is_clash] = IGNORED
        is_drawn |= inside
    return mask


def outline_problem(outline: Any, size: tuple[int, int]) -> str | None:
    """Returns why a `segmentation` is no outline in a picture of this width and height, None if it is one."""
    width, height = size
    if outline is None:
        return "it has no outline (segmentation), and task.masks names no folder of masks"
    if isinstance(outline, dict):
        if outline.get("size") != [height, width]:
            return f"its run lengths are of [height, width] {outline.get('size')!r}, and the picture is {width} x {height}"
        lengths = _run_lengths(outline.get("counts"))
        if lengths is None:
            return "its run lengths are neither a list of whole numbers nor COCO's compressed text"
        if min(lengths, default=0) < 0 or sum(lengths) != width * height:
            return f"its run lengths do not add up to {width * height} pixels"
    elif not (isinstance(outline, list) and outline and all(is_numbers(p) and len(p) >= 6 and len(p) % 2 == 0 for p in outline)):
        return "its segmentation is neither polygons of three points or more [[x, y, x, y, ...]] nor run lengths {size, counts}"
    else:
        outside = max(max(-min(polygon), max(polygon[::2]) - width, max(polygon[1::2]) - height) for polygon in outline)
        if outside > ROUNDING:
            return f"its polygon reaches {outside:g} pixels beyond the picture of {width} x {height}"
    return None if _inside(outline, size).any() else "its segmentation has no area"


def read_mask(path: str, size: tuple[int, int], numbers_by_id: Mapping[int, int], unlabelled: int) -> Mask | str:
    """Returns the mask that a grey or palette picture of category ids holds, or what is wrong with it.

    Args:
        numbers_by_id: category id -> class number, IGNORED for categories that are known and not learned. 0 and 255 mean nothing, if no
            category has these ids.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                return f"its mode is {image.mode}; a mask is grey (L) or has a palette (P), 8 bits a pixel"
            ids = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        return f"cannot be read: {error}"
    if ids.shape != (size[1], size[0]):
        return f"is {ids.shape[1]} x {ids.shape[0]}, and its picture {size[0]} x {size[1]}"
    found = np.unique(ids)
    unknown = [int(value) for value in found if value not in numbers_by_id and value not in (0, IGNORED)]
    if unknown:
        return f"holds the value {unknown[0]}, which is no category's id"
    table = np.full(256, unlabelled, np.uint8)
    table[IGNORED] = IGNORED
    for category, number in numbers_by_id.items():
        if 0 <= category < len(table):
            table[category] = number
    return table[ids]


def encode_mask(mask: Mask) -> bytes:
    """Returns the mask as PNG, a thousandth of its size or so."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def decode_mask(encoded: bytes) -> Mask:
    """Returns what encode_mask was given."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.array(image)


def mask_name(picture: str) -> str:
    """Returns the name of a picture's mask."""
    return f"{Path(picture).stem}.png"


def _inside(outline: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Returns whether each pixel is inside of an outline without problems, bool [H, W]."""
    width, height = size
    if isinstance(outline, dict):
        lengths = _run_lengths(outline["counts"])
        assert lengths is not None
        return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T
    encoded = coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
    with warnings.catch_warnings(action="ignore"):  # of pycocotools 2.0.11 under numpy 2
        return np.asarray(coco_mask.decode(encoded), dtype=bool)


def _run_lengths(counts: Any) -> list[int] | None:
    """Returns how many pixels are outside, inside, outside, ..., column by column, as listed or as compressed text; None: it is neither.

    Not pycocotools: where the lengths add up to fewer pixels than the picture has, it leaves the others as they were in memory.
    Source of the text's layout: rleFrString in cocoapi's common/maskApi.c.
    """
    if isinstance(counts, list):
        return counts if all(isinstance(length, int) for length in counts) else None
    if not isinstance(counts, str) or not re.fullmatch(r"([P-o]{0,11}[0-O])*", counts):
        return None
    lengths: list[int] = []
    for digits in re.findall(r"[P-o]*[0-O]", counts):  # 5 bits a character, the lowest first; the last character holds the sign
        value = sum((ord(digit) - ord("0") & 31) << 5 * place for place, digit in enumerate(digits))
        if ord(digits[-1]) - ord("0") & 16:
            value -= 1 << 5 * len(digits)
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths
