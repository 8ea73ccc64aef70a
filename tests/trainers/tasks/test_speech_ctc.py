"""Speech recognition: what is prepared, the loss against every path counted by hand, decoding, and what a run saves."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.load import load_experiment
from launch.config.resolve import resolve
from tests.tiny_sounds import tiny_recordings, write_recording
from trainers.sounds.recogniser import decode_greedily, load_recogniser, spelled
from trainers.tasks.speech_ctc import SpeechCtcTask, build_task, frames_needed

CLASS = "trainers.architectures.speech_network:SpeechNetwork"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def values(source: Path, **sections: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "speech",
        "model": {"class": CLASS, "kwargs": {"width": 16, "num_recurrent": 1, "dropout": 0.0}},
        "task": {"kind": "speech_ctc", "name_pattern": r"(?P<text>[^_]+)_\d+\.wav", "sample_rate": 8000, "num_mels": 16},
        "data": {"source": str(source), "format": "audio_folder", "splits": {"train": "*_?.wav", "validation": "*_??.wav"}},
        "train": {"duration": "1 epoch", "global_batch_size": 4},
        "optimizer": {"lr": 0.01},
        "evaluate": {"metric": "wer"},
    }
    return {name: base.get(name, {}) | sections.get(name, {}) if isinstance(base.get(name), dict) else base[name] for name in base}


def built(source: Path, **sections: Any) -> SpeechCtcTask:
    return build_task(Experiment.model_validate(values(source, **sections)))


def refused(source: Path, **sections: Any) -> str:
    with pytest.raises(ConfigError) as error:
        built(source, **sections)
    return str(error.value)


def test_equal_neighbours_need_a_blank_between_them():
    assert [frames_needed(text) for text in ("", "a", "ab", "aa", "three", "aaa")] == [0, 1, 2, 3, 6, 5]


def test_a_path_is_spelled_without_repetitions_and_blanks():
    assert spelled([0, 1, 1, 0, 1, 2, 2, 0], "ab") == "aab"
    assert spelled([1, 2, 1, 1], " a") == "a"  # no spaces at the ends
    assert spelled([0, 0], "ab") == ""


def test_frames_behind_the_end_are_not_decoded():
    logits = torch.eye(3)[torch.tensor([[1, 0, 2, 2], [2, 2, 1, 1]])]
    assert decode_greedily(logits, torch.tensor([4, 2]), "ab") == ["ab", "b"]


def test_the_loss_is_that_of_every_path_of_a_transcript(tmp_path):
    task = built(tiny_recordings(tmp_path / "sounds", 12))
    logits = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    probabilities = logits[0].softmax(-1)
    paths = [path for path in itertools.product(range(3), repeat=4) if spelled(path, "ab") == "ab"]
    expected = -math.log(sum(math.prod(float(probabilities[t, letter]) for t, letter in enumerate(path)) for path in paths))
    counts = {"num_frames": torch.tensor([4]), "num_letters": torch.tensor([2])}
    batch = {"frames": torch.zeros(1, 4, 16), "labels": torch.tensor([[1, 2]]), **counts}
    loss, count = task.train_loss(lambda *_: logits, batch, 0.0)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert count.item() == task.batch_count(batch) == 2


def test_a_sample_is_judged_alike_in_any_batch(tmp_path):
    task = built(tiny_recordings(tmp_path / "sounds", 12))
    model, samples = task.build_model().eval(), task.dataset("validation")
    together = task.evaluate_batch(model, task.collate([samples[0, 0], samples[0, 1]]))[0]
    alone = [task.evaluate_batch(model, task.collate([samples[0, index]]))[0].item() for index in range(2)]
    assert samples[0, 0]["frames"].shape != samples[0, 1]["frames"].shape
    assert together.tolist() == pytest.approx(alone, rel=1e-5)


def test_word_and_letter_errors_have_exact_values(tmp_path):
    task = built(tiny_recordings(tmp_path / "sounds", 12))
    metrics = task.build_metrics()
    metrics.update(["one two", "tree"], ["one too", "three"])
    metrics.update(["", "five"], ["four", "five"])
    computed = {name: float(value) for name, value in metrics.compute().items()}
    assert computed == {"wer": pytest.approx(3 / 5), "cer": pytest.approx(6 / 20)}


def test_word_and_letter_errors_that_agree_at_first_stay_apart(tmp_path):
    metrics = built(tiny_recordings(tmp_path / "sounds", 12)).build_metrics()
    metrics.update(["a"], ["b"])
    metrics.update(["ab"], ["aa"])
    assert {name: float(value) for name, value in metrics.compute().items()} == {"wer": 1.0, "cer": pytest.approx(2 / 3)}


def test_only_training_hides_stripes_and_each_epoch_others(tmp_path):
    task = built(tiny_recordings(tmp_path / "sounds", 12))
    train, validation = task.dataset("train"), task.dataset("validation")
    assert not torch.equal(train[0, 1]["frames"], train[1, 1]["frames"])
    assert torch.equal(train[1, 1]["frames"], task.dataset("train")[1, 1]["frames"])
    assert torch.equal(validation[0, 1]["frames"], validation[1, 1]["frames"])
    assert task.lengths("train").tolist() == [len(train[0, index]["frames"]) for index in range(len(train))]


def test_transcripts_that_cannot_be_learned_are_named(tmp_path):
    folder = tiny_recordings(tmp_path / "sounds", 9)
    write_recording(folder / "c_10.wav", "ab")
    write_recording(folder / "abababababababab_8.wav", "a")
    (folder / "ab_9.wav").write_bytes(b"RIFF")
    message = refused(folder)
    assert f"{folder / 'c_10.wav'}: its transcript 'c' has letters that no transcript of the train split has: 'c'" in message
    assert f"{folder / 'abababababababab_8.wav'}: its transcript 'abababababababab' needs 16 frames, and it has 8" in message
    assert f"{folder / 'ab_9.wav'}: cannot be read as a recording" in message
    write_recording(folder / "a_11.wav", "a")
    task = built(folder, data={"on_bad_row": "skip"})
    assert task.num_samples == {"train": 9, "validation": 1}
    assert task.notes[0] == "3 recordings skipped (data.on_bad_row=skip):"


@pytest.mark.parametrize(
    ("written", "encoding", "told"),
    [
        (b"n\xe9", "utf-8", ".txt: bytes that are not utf-8\n    allowed: another data.encoding, e.g. latin-1"),
        (b"\xff\xfea\x00", "utf-8", ".txt: data.encoding: begins with the byte order mark of UTF-16, and is no utf-8\n    try: data.encoding=utf-16"),
        (b"abc", "utf-16", ".txt: is not utf-16: 'utf-16-le' codec can't decode"),
        (b"a\x00b", "utf-8", r".wav: its transcript 'a\x00b' holds '\x00', which nobody can say"),
        ("a\ufffdb".encode(), "utf-8", ".wav: its transcript 'a\ufffdb' holds '\ufffd', which nobody can say"),
        (b"\xef\xbb\xbfa\r\nb", "utf-8", None),
        (b"n\xe9", "latin-1", None),
        ("a b".encode("utf-16"), "utf-16", None),
    ],
)
def test_a_transcript_is_read_in_its_encoding_or_not_at_all(written, encoding, told, tmp_path):
    folder = tmp_path / "sounds"
    for name in ("a_1", "a_11"):
        write_recording(folder / f"{name}.wav", "abab").with_suffix(".txt").write_bytes(written)
    sections = {"task": {"name_pattern": None}, "data": {"encoding": encoding}}
    if told is None:
        assert built(folder, **sections).alphabet in (" ab", "n\xe9")
    else:
        assert told in refused(folder, **sections)


def test_words_stand_for_words_and_letters_are_small(tmp_path):
    folder = tmp_path / "sounds"
    for number, name in enumerate(("A", "b", "B B")):
        write_recording(folder / f"{name}_{number}.wav", "aba")
    write_recording(folder / "A_10.wav", "aba")
    task = built(folder, task={"words": {"b": "no", "B": "yes"}})
    assert task.alphabet == " aenosy"
    assert "A" in built(folder, task={"lowercase": False}).alphabet


def test_what_a_run_saved_writes_down_a_recording_in_three_lines(tmp_path):
    folder = tiny_recordings(tmp_path / "sounds", 12)
    task = built(folder)
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    batch = task.collate([task._recordings("train", num_masks=0)[0, index] for index in range(10)])
    for _ in range(80):
        optimizer.zero_grad()
        loss, count = task.train_loss(model, batch, 0.0)
        (loss / count).backward()
        optimizer.step()
    task.save(model, tmp_path / "model", model.state_dict())
    recognise = load_recogniser(tmp_path / "model")
    assert recognise(write_recording(tmp_path / "new.wav", "bab")) == "bab"
    assert recognise(write_recording(tmp_path / "other.wav", "ba", rate=16000, channels=2)) == "ba"
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"text\.wav: cannot be read"):
        recognise(tmp_path / "text.wav")
    shown = task.illustrate(model.eval(), "validation", lambda batch: batch, tmp_path / "figures")
    assert shown.startswith("## Transcripts\n\nOf the validation split.")
    assert len(list((tmp_path / "figures").glob("validation-heard-*.png"))) == 2


def test_the_data_decides_the_sizes_and_a_hub_model_is_refused(tmp_path):
    folder = tiny_recordings(tmp_path / "sounds", 12)
    with pytest.raises(ConfigError, match="the data decides it"):
        built(folder, model={"kwargs": {"num_letters": 7}}).build_model()
    path = tmp_path / "speech.json"
    path.write_text(Experiment.model_validate(values(folder)).model_dump_json(by_alias=True))
    with pytest.raises(ConfigError) as error:
        resolve(load_experiment(str(path), ["model.source=facebook/wav2vec2-base", "model.class=null", "train.label_smoothing=0.1"]))
    assert "speech_ctc trains a network of a class" in str(error.value)
    assert "train.label_smoothing=0.1: has no meaning for speech_ctc" in str(error.value)
