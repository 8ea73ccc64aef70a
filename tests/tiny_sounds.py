"""Recordings small enough for a test, whose letters can be heard: a is a low tone, b a high one, with a pause between."""

from __future__ import annotations

import math
import random
import wave
from pathlib import Path

import numpy as np

RATE = 8000
_HERTZ = {"a": 400, "b": 1600}


def tiny_recordings(folder: Path, num: int = 24, seed: int = 0) -> Path:
    """Writes folder/WORD_N.wav, words of one to three letters; returns the folder."""
    source = random.Random(seed)
    for number in range(num):
        word = "".join(source.choices("ab", k=1 + number % 3))
        write_recording(folder / f"{word}_{number}.wav", word, source)
    return folder


def write_recording(path: Path, word: str, source: random.Random | None = None, rate: int = RATE, channels: int = 1) -> Path:
    """Writes the tones of a word, 60 ms each with 40 ms of noise behind it; returns its path."""
    source, samples = source or random.Random(0), list[float]()
    for letter in word:
        samples += [0.5 * math.sin(2 * math.pi * _HERTZ[letter] * n / rate) for n in range(round(0.06 * rate))]
        samples += [0.0] * round(0.04 * rate)
    noisy = [value + source.uniform(-0.01, 0.01) for value in samples]
    pcm = np.repeat((np.array(noisy) * 32000).astype(np.int16), channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return path
