"""Speech recognition, letter by letter: a loss over all ways in which letters can lie in the frames, and greedy decoding."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from launch.config.experiment import Experiment
from launch.config.tasks.speech_ctc import SpeechCtc
from trainers.data_facts import prepare_once, write_facts
from trainers.datasets import divide
from trainers.models.own_networks import build_sized_network, save_sized_network
from trainers.reading.columns import Indices
from trainers.reading.rows import BadRows, Split
from trainers.reports.rendering import escaped, table
from trainers.sounds.dataset import RecordingDataset, Row, collate_recordings, write_recordings
from trainers.sounds.features import MelBands
from trainers.sounds.readers import load_recordings
from trainers.sounds.recogniser import BLANK, decode_greedily
from trainers.sounds.recordings import read_recording
from trainers.tasks import Batch

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

NUM_SHOWN = 8
"""Recordings whose transcripts the report shows."""


def build_task(experiment: Experiment) -> SpeechCtcTask:
    """Returns the task with its recordings read; ranks that call this together share one preparation."""
    return SpeechCtcTask(experiment, *prepare_once(experiment, prepare))


class SpeechCtcTask:
    """See trainers.tasks.Task for what each method promises; the loss is a letter's."""

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, SpeechCtc)
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint: str = info["fingerprint"]
        self.label_names: list[str] = []
        self.notes: list[str] = list(info["notes"])
        self.alphabet: str = info["alphabet"]
        self.collate = collate_recordings
        self.options = experiment.task
        self._experiment = experiment
        self._folder = folder

    @property
    def _sizes(self) -> dict[str, int]:
        return {"num_features": self.options.num_mels, "num_letters": len(self.alphabet) + 1}

    def dataset(self, split: str) -> RecordingDataset:
        return self._recordings(split, self.options.num_masks if split == "train" else 0)

    def lengths(self, split: str) -> Indices:
        return self.dataset(split).lengths()

    def build_model(self) -> nn.Module:
        return build_sized_network(self._experiment.model, self._sizes, self._experiment.seed)

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        return _losses(model(batch["frames"], batch["num_frames"]), batch).sum(), batch["num_letters"].sum()

    def batch_count(self, batch: Batch) -> int:
        return int(batch["num_letters"].sum())

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        """Returns the frames, real and padded."""
        return int(batch["num_frames"].sum()), batch["frames"].shape[0] * batch["frames"].shape[1]

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[list[str], list[str]]]:
        logits = model(batch["frames"], batch["num_frames"])
        heard = decode_greedily(logits, batch["num_frames"], self.alphabet)
        return _losses(logits, batch), batch["num_letters"].sum(), (heard, self._said(batch))

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection
        from torchmetrics.text import CharErrorRate, WordErrorRate

        # Without groups: they take two metrics for one if their sums agree after the first batch, as of words of one letter.
        return MetricCollection({"wer": WordErrorRate(), "cer": CharErrorRate()}, compute_groups=False)

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        """Writes the recording as the network sees it, time from left to right, and returns its transcript and a link to it in Markdown."""
        sample = self._recordings(split, num_masks=0)[0, index]
        path = folder / f"{split}-{index}.png"
        _draw_frames(path, sample["frames"])
        return f"{escaped(''.join(self.alphabet[letter - 1] for letter in sample['letters']))} ![{split} {index}]({folder.name}/{path.name})"

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns what is said in a few recordings beside what the model writes."""
        samples, count = self._recordings(split, num_masks=0), min(NUM_SHOWN, self.num_samples[split])
        indices = [number * self.num_samples[split] // count for number in range(count)]
        batch = place(collate_recordings([samples[0, index] for index in indices]))
        heard = decode_greedily(model(batch["frames"], batch["num_frames"]), batch["num_frames"], self.alphabet)
        pictures = [""] * count
        if folder is not None:
            for number, index in enumerate(indices):
                path = folder / f"{split}-heard-{index}.png"
                _draw_frames(path, samples[0, index]["frames"])
                pictures[number] = f"![frames of {split} {index}]({folder.name}/{path.name})"
        rows = zip(pictures, map(escaped, self._said(batch)), map(escaped, heard), map(str, indices), strict=True)
        return f"## Transcripts\n\nOf the {split} split.\n\n" + table(("frames", "said", "written", "index"), rows)

    def save(self, model: nn.Module, folder: Path, weights: Mapping[str, Tensor]) -> None:
        facts = {"alphabet": self.alphabet, "task": self.options.model_dump(mode="json")}
        save_sized_network(self._experiment.model, self._sizes, facts, folder, weights)

    def _recordings(self, split: str, num_masks: int) -> RecordingDataset:
        path, num_samples = self._folder / f"{split}.arrow", self.num_samples[split]
        return RecordingDataset(path, num_samples, MelBands.of(self.options), num_masks, self.options.mask_share, self._experiment.seed)

    def _said(self, batch: Batch) -> list[str]:
        counts = batch["num_letters"].tolist()
        return ["".join(self.alphabet[n - 1] for n in letters[:count]) for letters, count in zip(batch["labels"].tolist(), counts, strict=True)]


def prepare(experiment: Experiment, folder: Path) -> None:
    """Reads every recording, checks it and its transcript, and writes both into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad row.
    """
    options, data = experiment.task, experiment.data
    assert isinstance(options, SpeechCtc)
    bad_rows = BadRows(data.on_bad_row)
    splits = load_recordings(data, options, bad_rows)
    texts = {name: [_written(text, options) for text in split.columns[options.text]] for name, split in splits.items()}
    alphabet = "".join(sorted({letter for text in texts["train"] if text for letter in text if not _is_damage(letter)}))
    conversions = Counter[str]()
    usable = {name: _usable(split, texts[name], alphabet, options, bad_rows, conversions) for name, split in splits.items()}
    bad_rows.check()
    rows = divide(usable, data, experiment.seed)
    num_samples = {name: write_recordings(folder / f"{name}.arrow", _rows(split, options, alphabet)) for name, split in rows.items()}
    notes = [f"{count} recordings were {what}" for what, count in conversions.most_common()]
    write_facts(folder, num_samples, notes, bad_rows, "recordings", alphabet=alphabet)


def frames_needed(text: str) -> int:
    """Returns the frames that a text takes at least: one a letter, and a blank between equal neighbours."""
    return len(text) + sum(first == second for first, second in pairwise(text))


def _losses(logits: Tensor, batch: Batch) -> Tensor:
    """Returns the negative logarithm of each transcript's probability, float32 [B]."""
    scores = logits.float().log_softmax(dim=-1).transpose(0, 1)
    return functional.ctc_loss(scores, batch["labels"], batch["num_frames"], batch["num_letters"], BLANK, reduction="none")


def _written(text: object, options: SpeechCtc) -> str | None:
    """Returns a transcript as it is learned: one space between words, task.words put in; None where it is no text."""
    if not isinstance(text, str):
        return None
    words = " ".join(options.words.get(word, word) for word in text.split())
    return words.lower() if options.lowercase else words


def _usable(split: Split, texts: Sequence[str | None], alphabet: str, options: SpeechCtc, bad_rows: BadRows, conversions: Counter[str]) -> Split:
    """Returns the rows with a recording and a transcript that fit together; says of the others why not."""
    bands, is_usable = MelBands.of(options), np.zeros(len(split), bool)
    for index, (value, text) in enumerate(zip(split.columns[options.audio], texts, strict=True)):
        where = value if isinstance(value, str) and value else split.place(index)
        if text is None and split.columns[options.text][index] is None and isinstance(value, str):
            continue  # the reader has said why
        recording = read_recording(value, options)
        problem = recording.problem or _text_problem(text, alphabet, bands.num_frames(len(recording.samples)))
        if problem:
            bad_rows.add(where, problem)
        elif recording.conversion:
            conversions[recording.conversion] += 1
        is_usable[index] = problem is None
    return replace(split, columns={**split.columns, options.text: texts}).select(np.flatnonzero(is_usable))


def _text_problem(text: str | None, alphabet: str, num_frames: int) -> str | None:
    if not text:
        return "its transcript is empty" if text is not None else "its transcript is no text"
    damage = next((letter for letter in text if _is_damage(letter)), None)
    if damage is not None:
        return f"its transcript {text!r} holds {damage!r}, which nobody can say: another data.encoding, or a damaged file"
    unknown = sorted(set(text) - set(alphabet))
    if unknown:
        return f"its transcript {text!r} has letters that no transcript of the train split has: {' '.join(map(repr, unknown))}"
    if frames_needed(text) > num_frames:
        return f"its transcript {text!r} needs {frames_needed(text)} frames, and it has {num_frames}; a smaller task.hop_ms makes more"
    return None


def _is_damage(letter: str) -> bool:
    """Returns whether a letter is a control character, a byte order mark, or what stands for bytes that somebody could not decode."""
    return letter in "\ufeff\ufffd" or unicodedata.category(letter) in ("Cc", "Cs")


def _rows(split: Split, options: SpeechCtc, alphabet: str) -> Iterator[Row]:
    numbers = {letter: number for number, letter in enumerate(alphabet, start=1)}
    for value, text in zip(split.columns[options.audio], split.columns[options.text], strict=True):
        yield read_recording(value, options).samples, [numbers[letter] for letter in text]


def _draw_frames(path: Path, frames: Tensor) -> None:
    """Writes frames as a picture, low bands below."""
    from matplotlib.image import imsave

    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, frames.T.repeat_interleave(3, 0).repeat_interleave(3, 1).numpy(), cmap="magma", origin="lower")
