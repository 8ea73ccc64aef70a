"""Large numbers as a person reads them."""

from __future__ import annotations

_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def show_count(count: int) -> str:
    """Returns three digits and a unit: 22.7 M, 86.2 k; below a thousand the number itself."""
    for size, unit in _UNITS:
        value = count / size
        if value >= 0.9995:
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return str(count)
