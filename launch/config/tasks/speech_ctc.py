"""Options of speech recognition by connectionist temporal classification."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from launch.config.tasks.base import Metrics, TaskSection


def _parse_name_pattern(text: str) -> str:
    try:
        groups = re.compile(text).groupindex
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    if "text" not in groups:
        raise ValueError(f"{text!r} has no group that is called text: '(?P<text>...)'")
    return text


class SpeechCtc(TaskSection):
    """The words of a recording, letter by letter (CTC: Graves et al., ICML 2006)."""

    READS = "sounds"
    SMOOTHS_LABELS = False
    USAGE = (
        "from trainers.sounds.recogniser import load_recogniser",
        'recognise = load_recogniser("{model}")',
        'print(recognise("speech.wav"))',
    )

    kind: Literal["speech_ctc"] = Field(description="Which task this is; chooses the other keys.")
    audio: str = Field(
        "audio", description="Column of the recordings in tables and data sets of the hub: a path beside the table, or the hub's audio."
    )
    text: str = Field("text", description="Column of the transcripts, in tables and data sets of the hub.")
    name_pattern: Annotated[str, AfterValidator(_parse_name_pattern)] | None = Field(
        None, description="Regular expression of a recording's whole file name in an audio_folder; its group `text` is what is said."
    )
    words: dict[str, str] = Field({}, description="What stands for a word of the transcripts, e.g. {'0': zero}.")
    lowercase: bool = Field(True, description="Write all transcripts in small letters.")
    sample_rate: int = Field(16_000, ge=1_000, le=192_000, description="Samples a second that the network is made for.")
    resample: bool = Field(False, description="Convert recordings of other sample rates. false: they are bad rows.")
    mix_channels: bool = Field(False, description="Average the channels of stereo recordings. false: they are bad rows.")
    num_mels: int = Field(40, ge=8, le=256, description="Frequency bands that the network sees, evenly spaced on the mel scale.")
    window_ms: float = Field(25.0, gt=1, le=200, description="Length of a frame, in milliseconds.")
    hop_ms: float = Field(10.0, gt=1, le=200, description="From the start of one frame to that of the next, in milliseconds.")
    num_masks: int = Field(2, ge=0, le=20, description="Stripes of time, and as many of frequency, that training hides in each sample (SpecAugment).")
    mask_share: float = Field(0.15, ge=0, le=0.5, description="Widest stripe, as a share of the recording or of the bands.")

    def metrics(self) -> Metrics:
        return {"wer": "min", "cer": "min", "loss": "min"}

    def columns(self) -> dict[str, list[str]]:
        return {"task.audio": [self.audio], "task.text": [self.text]}
