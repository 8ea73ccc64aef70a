"""Ratings small enough for a test: half of the people like items whose name begins with even, the others those with odd."""

from __future__ import annotations

import random
from pathlib import Path


def tiny_ratings(path: Path, num_people: int, seed: int = 0) -> Path:
    """Writes user, item, rating: each person rates six of twelve items, four or five of the liked kind with 5, the others with 2."""
    source, lines = random.Random(seed), ["user,item,rating"]
    for person in range(num_people):
        kinds = ("even", "odd") if person % 2 == 0 else ("odd", "even")
        num_liked = source.randint(4, 5)
        for kind, count, stars in zip(kinds, (num_liked, 6 - num_liked), (5, 2), strict=True):
            lines += [f"p{person},{kind}{number},{stars}" for number in source.sample(range(6), count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path
