"""One recording: what is wrong with it, and what it sounds like as samples."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from launch.config.tasks.speech_ctc import SpeechCtc

Samples = NDArray[np.int16]

UNKNOWN_SIZE = 0x7FF00000
"""Bytes of sound from which on a header tells no size: who writes to a pipe puts the largest number there, or one near it."""

FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE", "VORBIS", "OPUS"})
"""libsndfile's names of what is kept, or decoded, as fractions of full scale.

Asked for whole numbers it cuts off what stands behind the point of the first two, and lets the others wrap around beyond full scale.
"""

MAX_PEAK = 4.0
"""Of fractions; what was mixed or decoded reaches a little beyond 1 and is cut off there, what reaches further was never scaled."""


@dataclass(frozen=True)
class Recording:
    """What a file holds.

    Args:
        samples: int16 [N], at the task's sample rate; empty if there is a problem.
        problem: why it cannot be used; None if it can.
        conversion: what was done to it, in words; None: nothing.
    """

    samples: Samples
    problem: str | None = None
    conversion: str | None = None


def read_recording(value: Any, options: SpeechCtc) -> Recording:
    """Returns a recording as the network is to hear it; whatever is wrong with it is its `problem`.

    Args:
        value: a path, or the hub's {bytes, path}, one of which may be missing.
    """
    import soundfile

    source = (value.get("bytes") or value.get("path")) if isinstance(value, Mapping) else value
    if not isinstance(source, str | bytes) or not source:
        return _unusable("there is no recording")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            dtype, rate = "float64" if file.subtype in FLOAT_SUBTYPES else "int16", file.samplerate
            samples = file.read(dtype=dtype, always_2d=True)
            missing = _missing(file.extra_info, file.frames, len(samples))
    except (OSError, RuntimeError, soundfile.SoundFileError) as error:
        return _unusable(f"cannot be read as a recording: {_reason(error)}")
    if missing:
        return _unusable(f"is cut off: {missing}")
    conversions = []
    if samples.dtype != np.int16:
        if problem := _scale_problem(samples):
            return _unusable(problem)
        samples = _rounded(samples * 2**15)
    if samples.shape[1] > 1:
        if not options.mix_channels:
            return _unusable(f"has {samples.shape[1]} channels, and the network hears one; task.mix_channels=true averages them")
        samples, conversions = _rounded(samples.mean(axis=1)), [f"of {samples.shape[1]} channels, averaged"]
    samples = samples.reshape(-1)
    if rate != options.sample_rate:
        if not options.resample:
            return _unusable(f"has {rate} samples a second, not {options.sample_rate}; task.resample=true converts it")
        samples = _rounded(resampled(torch.from_numpy(samples).double(), rate, options.sample_rate).numpy())
        conversions.append(f"of {rate} samples a second, converted to {options.sample_rate}")
    window = round(options.window_ms * options.sample_rate / 1000)
    if len(samples) < window:
        return _unusable(f"lasts {1000 * len(samples) / options.sample_rate:.0f} ms, less than one frame ({options.window_ms:g} ms)")
    if not samples.any():
        return _unusable("is silent: every sample is 0")
    return Recording(samples, conversion=", ".join(conversions) or None)


def resampled(samples: Tensor, rate: int, wanted: int) -> Tensor:
    """Returns the samples at another rate, float [N * wanted / rate]: their spectrum cut off, or continued with zeros.

    Exact for what lies below half of both rates; the recording is taken as periodic, which is heard at its very ends alone.
    """
    length = max(1, round(len(samples) * wanted / rate))
    spectrum = torch.fft.rfft(samples)
    kept = torch.zeros(length // 2 + 1, dtype=spectrum.dtype)
    both = min(len(kept), len(spectrum))
    kept[:both] = spectrum[:both]
    return torch.fft.irfft(kept, n=length) * (length / len(samples))


def _missing(log: str, num_said: int, num_read: int) -> str | None:
    """Returns how much of a recording its header promises and the file does not have, in words; None: it is whole, as far as is known.

    Args:
        log: libsndfile's, of what it found in the file; the sizes of WAV and AIFF are right there, and nowhere else.
        num_said: samples, as another format's header has them; some tools that cut MP3 leave it a little too large.
    """
    chunk = re.search(r"^ ?(?:data|SSND) : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    said, there = map(int, chunk.groups()) if chunk else (0, 0)
    if there + 1 < said < UNKNOWN_SIZE:
        return f"its header says {said} bytes of sound, and {there} are there"
    return f"its header says {num_said} samples, and {num_read} are there" if num_read < 0.99 * num_said < UNKNOWN_SIZE else None


def _scale_problem(fractions: NDArray[np.float64]) -> str | None:
    """Returns why samples cannot be taken as fractions of full scale, None if they can."""
    peak = np.abs(fractions).max(initial=0.0)
    if not np.isfinite(peak):
        return "has samples that are no finite numbers"
    return f"has samples up to {peak:g}, and full scale is 1: divide them by what they were multiplied by" if peak > MAX_PEAK else None


def _unusable(problem: str) -> Recording:
    return Recording(np.zeros(0, np.int16), problem)


def _rounded(samples: Any) -> Samples:
    return np.clip(np.round(samples), -(2**15), 2**15 - 1).astype(np.int16)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).replace("\n", " ")[:200]
