"""Boxes of a picture's objects: checked against the picture, and as corners."""

from __future__ import annotations

from typing import Any

from trainers.reading.rows import shortened

ROUNDING = 1.0
"""Pixels by which a box may reach beyond its picture: annotation tools round; it is cut there."""

MAX_NUMBER = 2**53
"""Whole numbers from here on are no floats; a picture has fewer pixels."""


def box_problem(box: Any, size: tuple[int, int]) -> str | None:
    """Returns why (left, top, width, height) is no box in a picture of this width and height, None if it is one."""
    if not is_numbers(box) or len(box) != 4:
        return f"its bbox {shortened(repr(box))} is not [left, top, width, height]"
    left, top, width, height = box
    if width <= 0 or height <= 0:
        return f"its bbox {shortened(repr(box))} has no area: [left, top, width, height]"
    outside = max(-left, -top, left + width - size[0], top + height - size[1])
    if outside > ROUNDING:
        return f"its bbox {shortened(repr(box))} reaches {outside:g} pixels beyond the picture of {size[0]} x {size[1]}"
    return None


def corners(box: Any, size: tuple[int, int]) -> list[float]:
    """Returns left, top, right and bottom of a box without problems, cut to the picture."""
    left, top, width, height = box
    return [max(left, 0.0), max(top, 0.0), min(left + width, float(size[0])), min(top + height, float(size[1]))]


def is_numbers(values: Any) -> bool:
    """Returns whether this is a list of finite numbers that can be pixels."""
    return isinstance(values, list) and all(isinstance(value, int | float) and abs(value) < MAX_NUMBER for value in values)
