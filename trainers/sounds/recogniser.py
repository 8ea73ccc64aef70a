"""Uses a trained recogniser: three lines of Python, a recording goes in, its words come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn

from launch.config.tasks.speech_ctc import SpeechCtc
from trainers.models.own_networks import load_sized_network
from trainers.sounds.features import MelBands
from trainers.sounds.recordings import read_recording

BLANK = 0
"""Number of the letter that says nothing; the alphabet begins at 1."""


@dataclass(frozen=True)
class Recogniser:
    """A recording goes in, what is said comes out."""

    network: nn.Module
    options: SpeechCtc
    alphabet: str

    def __call__(self, recording: str | Path) -> str:
        """Returns the words of a sound file; another sample rate is converted, channels are averaged.

        Raises:
            ValueError: the file is no recording.
        """
        options = self.options.model_copy(update={"resample": True, "mix_channels": True})
        found = read_recording(str(recording), options)
        if found.problem:
            raise ValueError(f"{recording}: {found.problem}")
        frames = MelBands.of(options)(torch.from_numpy(found.samples))
        with torch.inference_mode():
            logits = self.network(frames[None], torch.tensor([len(frames)]))
        return spelled(logits[0].argmax(-1).tolist(), self.alphabet)


def load_recogniser(folder: str | Path) -> Recogniser:
    """Returns the recogniser that a run saved in its model/ folder.

    Raises:
        ConfigError: no run of speech_ctc wrote it.
    """
    network, facts = load_sized_network(Path(folder))
    return Recogniser(network, SpeechCtc.model_validate(facts["task"]), facts["alphabet"])


def decode_greedily(logits: Tensor, num_frames: Tensor, alphabet: str) -> list[str]:
    """Returns the likeliest letter of each frame, repetitions and blanks taken out: one text a sample of float [B, T, C]."""
    best = logits.argmax(dim=-1).tolist()
    return [spelled(letters[:count], alphabet) for letters, count in zip(best, num_frames.tolist(), strict=True)]


def spelled(letters: Sequence[int], alphabet: str) -> str:
    """Returns the text of a path through the frames: of equal neighbours one, then without blanks."""
    text = "".join(alphabet[letter - 1] for letter, _ in groupby(letters) if letter != BLANK)
    return " ".join(text.split())
