"""Recordings that cannot be used are named with their place; splits are found where they are."""

from __future__ import annotations

import re
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from launch.config.data import Data
from launch.config.errors import ConfigError
from launch.config.tasks.speech_ctc import SpeechCtc
from tests.tiny_sounds import tiny_recordings, write_recording
from trainers.reading.rows import BadRows
from trainers.sounds.readers import load_recordings
from trainers.sounds.recordings import read_recording

NAMES = r"(?P<text>[ab]+)_\d+\.wav"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def options(**values: Any) -> SpeechCtc:
    return SpeechCtc(kind="speech_ctc", **{"sample_rate": 8000, "name_pattern": NAMES} | values)


def found(source: Path, splits: dict[str, Any], bad_rows: BadRows | None = None, **values: Any):
    return load_recordings(Data.model_validate({"source": str(source), "splits": splits}), options(**values), bad_rows or BadRows("stop"))


def test_what_is_wrong_with_a_recording_is_said(tmp_path):
    silent = tmp_path / "silent.wav"
    with wave.open(str(silent), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4000))
    (tmp_path / "text.wav").write_text("no sound")
    problems = {
        write_recording(tmp_path / "stereo.wav", "a", channels=2): "has 2 channels, and the network hears one; task.mix_channels=true averages them",
        write_recording(tmp_path / "rate.wav", "a", rate=16000): "has 16000 samples a second, not 8000; task.resample=true converts it",
        write_recording(tmp_path / "empty.wav", ""): "lasts 0 ms, less than one frame (25 ms)",
        silent: "is silent: every sample is 0",
    }
    assert {path: read_recording(str(path), options()).problem for path in problems} == problems
    assert str(read_recording(str(tmp_path / "text.wav"), options()).problem).startswith("cannot be read as a recording: ")
    assert str(read_recording(str(tmp_path / "gone.wav"), options()).problem).startswith("cannot be read as a recording: ")
    assert read_recording({"bytes": None, "path": None}, options()).problem == "there is no recording"


@pytest.mark.parametrize(
    ("ending", "missing"),
    [("wav", "1600 bytes of sound, and 778 are there"), ("aiff", "1608 bytes of sound, and 7[0-9]{2} are there"), ("mp3", "8000 samples, and ")],
)
def test_a_recording_that_ends_too_early_is_not_learned(ending: str, missing: str, tmp_path: Path):
    whole, path = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    samples = np.sin(np.arange(8000 if ending == "mp3" else 800))
    soundfile.write(whole, samples, 8000)
    path.write_bytes(whole.read_bytes()[: len(whole.read_bytes()) // 2])
    assert read_recording(str(whole), options()).problem is None
    assert re.match(f"is cut off: its header says {missing}", str(read_recording(str(path), options()).problem))


@pytest.mark.parametrize("ending", ["wav", "aiff", "w64"])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_fractions_of_full_scale_are_the_samples_that_whole_numbers_are(ending: str, subtype: str, tmp_path: Path):
    samples = 0.4 * np.sin(np.arange(800))
    soundfile.write(tmp_path / "whole.wav", samples, 8000, subtype="PCM_16")
    soundfile.write(tmp_path / f"float.{ending}", samples, 8000, subtype=subtype)
    whole, fractions = (read_recording(str(tmp_path / name), options()) for name in ("whole.wav", f"float.{ending}"))
    assert fractions.problem is None
    assert np.abs(fractions.samples.astype(int) - whole.samples).max() <= 1
    assert whole.samples.max() == pytest.approx(0.4 * 2**15, abs=5)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS", "FLOAT"])
def test_what_is_louder_than_full_scale_is_cut_off_and_does_not_wrap_around(subtype: str, tmp_path: Path):
    path, square = tmp_path / ("a.wav" if subtype == "FLOAT" else "a.ogg"), np.sign(np.sin(np.arange(8000) * 0.3))
    soundfile.write(path, square * (1.2 if subtype == "FLOAT" else 1), 8000, subtype=subtype)
    samples = read_recording(str(path), options()).samples
    assert samples.max() == 2**15 - 1
    assert np.abs(np.diff(samples.astype(int)))[np.diff(square) == 0].max() < 2**15


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.nan, "has samples that are no finite numbers"),
        (np.inf, "has samples that are no finite numbers"),
        (12000.0, "has samples up to 12000, and full scale is 1: divide them by what they were multiplied by"),
    ],
)
def test_fractions_that_were_never_scaled_or_are_no_numbers_are_not_learned(value: float, problem: str, tmp_path: Path):
    samples = np.full(800, 0.5)
    samples[5] = value
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    assert read_recording(str(tmp_path / "a.wav"), options()).problem == problem


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 1601])
def test_a_recording_written_to_a_pipe_says_no_size_and_is_whole(size: int, tmp_path: Path):
    path = write_recording(tmp_path / "a.wav", "a")
    path.write_bytes(path.read_bytes()[:40] + size.to_bytes(4, "little") + path.read_bytes()[44:])
    assert read_recording(str(path), options()).problem is None


def test_the_bytes_of_the_hub_are_a_recording_too(tmp_path):
    path = write_recording(tmp_path / "a.wav", "ab")
    assert (read_recording({"bytes": path.read_bytes(), "path": None}, options()).samples == read_recording(str(path), options()).samples).all()


def test_stereo_and_other_rates_become_what_the_network_hears_where_that_is_wanted(tmp_path):
    plain = read_recording(str(write_recording(tmp_path / "a.wav", "ab")), options())
    both = read_recording(str(write_recording(tmp_path / "b.wav", "ab", rate=16000, channels=2)), options(resample=True, mix_channels=True))
    assert plain.conversion is None
    assert both.conversion == "of 2 channels, averaged, of 16000 samples a second, converted to 8000"
    assert len(both.samples) == len(plain.samples) == 1600
    assert abs(both.samples[100:400].astype(int) - plain.samples[100:400]).max() < 3200  # the noise differs


def test_splits_are_patterns_of_a_folder(tmp_path):
    folder = tiny_recordings(tmp_path / "sounds", 12)
    splits = found(folder, {"train": "*_?.wav", "validation": "*_1?.wav"})
    assert [len(splits[name]) for name in ("train", "validation")] == [10, 2]
    assert splits["train"].columns["text"][0] == Path(splits["train"].columns["audio"][0]).name.partition("_")[0]


def test_patterns_that_overlap_or_match_nothing_are_refused(tmp_path):
    folder = tiny_recordings(tmp_path / "sounds", 12)
    with pytest.raises(ConfigError) as error:
        found(folder, {"train": "*.wav", "validation": "*_1?.wav", "test": "*.flac"})
    assert "2 recordings are in the train split too, e.g. " in str(error.value)
    assert "no recording of" in str(error.value)
    assert "'*.flac'" in str(error.value)


def test_a_name_that_does_not_match_and_a_missing_transcript_are_bad_rows(tmp_path):
    folder = tiny_recordings(tmp_path / "sounds", 2)
    write_recording(folder / "x_2.wav", "a")
    bad_rows = BadRows("skip")
    found(folder, {"train": "*.wav", "validation": None}, bad_rows)
    assert [problem.where for problem in bad_rows.problems] == [str(folder / "x_2.wav")]
    bad_rows = BadRows("skip")
    (folder / "x_2.txt").write_text("a b")
    splits = found(folder, {"train": "*.wav", "validation": None}, bad_rows, name_pattern=None)
    assert list(splits["train"].columns["text"]) == [None, None, "a b"]
    assert len(bad_rows.problems) == 2
    assert bad_rows.problems[0].what.endswith("_0.txt beside it, and there is no task.name_pattern")


def test_a_table_names_recordings_beside_it(tmp_path):
    write_recording(tmp_path / "clips/one.wav", "ab")
    (tmp_path / "train.tsv").write_text("audio\ttext\nclips/one.wav\ta b\n")
    splits = found(tmp_path, {"train": "train.tsv", "validation": None}, name_pattern=None)
    assert list(splits["train"].columns["audio"]) == [str(tmp_path / "clips/one.wav")]
    assert splits["train"].place(0) == f"{tmp_path / 'train.tsv'}:2"


@pytest.mark.parametrize(("pattern", "what"), [("(", "is no regular expression"), (r"\d+", "has no group that is called text")])
def test_a_name_pattern_has_a_group_for_the_text(pattern: str, what: str):
    with pytest.raises(ValueError, match=what):
        options(name_pattern=pattern)
