"""What a network hears of a recording: the energy of each frame in bands of frequency, parts of it hidden while it learns."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from launch.config.tasks.speech_ctc import SpeechCtc

SILENCE = 1e-6
"""Added to energies, so that the logarithm of none is finite."""


@dataclass(frozen=True)
class MelBands:
    """Turns samples into frames; equal values give equal frames.

    Args:
        sample_rate: samples a second.
        window, hop: length of a frame, and from the start of one to the next, in samples.
        num_mels: bands of a frame.
    """

    sample_rate: int
    window: int
    hop: int
    num_mels: int

    @classmethod
    def of(cls, options: SpeechCtc) -> MelBands:
        per_ms = options.sample_rate / 1000
        return cls(options.sample_rate, round(options.window_ms * per_ms), round(options.hop_ms * per_ms), options.num_mels)

    def num_frames(self, num_samples: int) -> int:
        """Returns how many whole frames fit into so many samples."""
        return max(0, 1 + (num_samples - self.window) // self.hop)

    def __call__(self, samples: Tensor) -> Tensor:
        """Returns float32 [T, num_mels]: logarithms of energies, each band of mean 0 and variance 1 over the recording.

        Args:
            samples: int16 [N], one frame at least.
        """
        waves = samples.float() / 2**15
        frames = waves.unfold(0, self.window, self.hop) * torch.hann_window(self.window)
        spectrum = torch.fft.rfft(frames, n=self._fft_size).abs().square()
        with torch.autocast("cpu", enabled=False):  # an evaluation without data workers asks for samples inside its own
            energies = (spectrum @ self._filters + SILENCE).log()
        centred = energies - energies.mean(dim=0)
        return centred / (centred.square().mean(dim=0).sqrt() + 1e-3)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def _fft_size(self) -> int:
        return 2 ** math.ceil(math.log2(self.window))

    @cached_property
    def _filters(self) -> Tensor:
        """Triangles that overlap by half, evenly spaced on the mel scale (2595 log10(1 + f / 700)): float32 [F, num_mels]."""
        frequencies = torch.linspace(0, self.sample_rate / 2, self._fft_size // 2 + 1)
        highest = 2595 * math.log10(1 + self.sample_rate / 2 / 700)
        corners = 700 * (10 ** (torch.linspace(0, highest, self.num_mels + 2) / 2595) - 1)
        rising = (frequencies[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
        falling = (corners[2:] - frequencies[:, None]) / (corners[2:] - corners[1:-1])
        return torch.minimum(rising, falling).clamp(min=0)


def hide_stripes(frames: Tensor, num_masks: int, share: float, seed: int) -> Tensor:
    """Returns frames with random stripes of time and of frequency set to 0, their mean (SpecAugment: Park et al., arXiv:1904.08779).

    Args:
        frames: float32 [T, M].
        share: of T, and of M, that one stripe hides at most.
        seed: decides everything.
    """
    source = torch.Generator().manual_seed(seed)
    hidden = frames.clone()
    for dim in (0, 1):
        size = frames.shape[dim]
        for _ in range(num_masks):
            width = int(torch.randint(int(share * size) + 1, (), generator=source))
            start = int(torch.randint(size - width + 1, (), generator=source))
            hidden.narrow(dim, start, width).zero_()
    return hidden
