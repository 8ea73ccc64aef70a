"""Pictures small enough for a test, whose class can be seen: its colour is brightest in the channel of its number."""

from __future__ import annotations

import random
from pathlib import Path

CLASSES = ("blue", "green", "red")
_CHANNEL = {"red": 0, "green": 1, "blue": 2}


def tiny_folder(folder: Path, num_each: int = 8, splits: tuple[str, ...] = ("train", "val"), size: int = 20) -> Path:
    """Writes folder/SPLIT/CLASS/N.png, `num_each` of each class, of size x (size + 4) pixels; returns the folder."""
    source = random.Random(0)
    for split in splits:
        for name in CLASSES:
            for number in range(num_each):
                write_picture(folder / split / name / f"{number}.png", name, source, size)
    return folder


def write_picture(path: Path, name: str, source: random.Random, size: int = 20) -> Path:
    """Writes noise with one bright channel."""
    import numpy as np
    from PIL import Image

    pixels = np.array(source.choices(range(100), k=size * (size + 4) * 3), dtype=np.uint8).reshape(size, size + 4, 3)
    pixels[..., _CHANNEL[name]] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
