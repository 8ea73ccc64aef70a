"""Numbers that stand in a column: labels, ratings."""

from __future__ import annotations

import math


def parse_number(value: object) -> float | None:
    """Returns the finite number that a value is or that its text says, None where it is none; 1_000, as Python writes it, is none in a table."""
    text = str(value)
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None
