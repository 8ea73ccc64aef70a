"""Image classification: what is prepared once, and what a sample is on any number of workers."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from tests.tiny_pictures import CLASSES, tiny_folder
from trainers.tasks.image_classification import ImageClassificationTask, build_task

TASK = {"kind": "image_classification", "size": 12, "crop": "resized", "flip": 0.5, "augment": "trivial"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def experiment(source: Path, seed: int = 0, task: dict[str, Any] | None = None, **data: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "pictures",
            "seed": seed,
            "model": {"class": "trainers.architectures.small_cnn:SmallCnn", "kwargs": {"channels": 3, "size": 12}},
            "task": TASK | (task or {}),
            "data": {"source": str(source), "splits": {"validation": "val"}} | data,
            "train": {"duration": "1 epoch", "global_batch_size": 4},
            "optimizer": {"lr": 0.1},
        }
    )


def built(source: Path, **changes: Any) -> ImageClassificationTask:
    return build_task(experiment(source, **changes))


def refused(source: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        built(source, **changes)
    return str(error.value)


def spoil(folder: Path) -> Path:
    """Three pictures of train become: empty, cut off, and of one channel."""
    (folder / "train/red/0.png").write_bytes(b"")
    path = folder / "train/red/1.png"
    path.write_bytes(path.read_bytes()[:200])
    Image.new("L", (9, 9)).save(folder / "train/red/2.png")
    return folder


class Everything(torch.utils.data.Dataset):
    def __init__(self, samples: Any, keys: list[tuple[int, int]]) -> None:
        self.samples, self.keys = samples, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, place: int) -> torch.Tensor:
        return self.samples[self.keys[place]]["pixels"]


def test_a_sample_depends_on_seed_epoch_and_index_alone(tmp_path):
    folder = tiny_folder(tmp_path / "pictures")
    samples, keys = built(folder).dataset("train"), [(epoch, index) for epoch in (0, 1) for index in (5, 3, 20, 3)]
    torch.manual_seed(7)
    expected = [samples[key]["pixels"] for key in keys]
    assert torch.initial_seed() == 7
    torch.manual_seed(8)
    state = torch.get_rng_state()
    for num_workers in (0, 1, 2):
        found = list(DataLoader(Everything(samples, keys), batch_size=None, num_workers=num_workers, generator=torch.Generator()))
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(expected[1], expected[3])  # the same index, asked for twice
    assert not torch.equal(expected[1], expected[5])  # the next epoch
    assert not torch.equal(built(folder, seed=1).dataset("train")[keys[0]]["pixels"], expected[0])


def test_an_evaluation_looks_at_a_picture_the_same_way_every_time(tmp_path):
    samples = built(tiny_folder(tmp_path / "pictures")).dataset("validation")
    assert torch.equal(samples[0, 4]["pixels"], samples[9, 4]["pixels"])


def test_bad_pictures_stop_the_preparation_with_their_names(tmp_path):
    text = refused(spoil(tiny_folder(tmp_path / "pictures")))
    assert f"{tmp_path}/pictures/train/red/0.png: the picture is empty (0 bytes)" in text
    assert f"{tmp_path}/pictures/train/red/1.png: cannot be decoded" in text
    assert "data.on_bad_row=skip" in text


def test_bad_pictures_are_skipped_counted_and_looked_at_once(tmp_path, monkeypatch):
    folder = spoil(tiny_folder(tmp_path / "pictures"))
    task = built(folder, on_bad_row="skip")
    assert task.num_samples == {"train": 22, "validation": 24}
    assert task.notes[:2] == ["1 pictures have one channel and become RGB", "2 pictures skipped (data.on_bad_row=skip):"]
    monkeypatch.setattr("trainers.images.samples.scan_pictures", None)
    assert built(folder, on_bad_row="skip").num_samples == task.num_samples


def test_classes_are_the_folders_and_labels_their_numbers(tmp_path):
    task = built(tiny_folder(tmp_path / "pictures", num_each=2))
    assert task.label_names == list(CLASSES)
    assert [task.dataset("train")[0, index]["label"] for index in range(6)] == [0, 0, 1, 1, 2, 2]


def test_a_class_whose_pictures_are_all_in_validation_is_named(tmp_path):
    folder = tiny_folder(tmp_path / "pictures", num_each=2)
    shutil.rmtree(folder / "train/green")
    (folder / "train/green").mkdir()
    assert "the validation split has classes that train lacks: green" in refused(folder)


def test_a_picture_that_goes_missing_later_is_named(tmp_path):
    folder = tiny_folder(tmp_path / "pictures", num_each=2)
    samples = built(folder).dataset("train")
    (folder / "train/blue/1.png").unlink()
    with pytest.raises(Exception, match=r"train/blue/1.png: could be read when the data was prepared, and cannot now"):
        samples[0, 1]


def test_a_batch_is_bytes_until_it_is_on_the_device(tmp_path):
    task = built(tiny_folder(tmp_path / "pictures", num_each=2))
    samples = task.dataset("train")
    batch = task.collate([samples[0, 0], samples[0, 5]])
    assert (batch["pixels"].dtype, batch["pixels"].shape) == (torch.uint8, (2, 3, 12, 12))
    assert batch["labels"].tolist() == [0, 2]
    seen = []
    task.logits(lambda pixels: seen.append(pixels) or torch.zeros(2, 3), batch)
    assert torch.allclose(seen[0], (batch["pixels"].float() / 255 - 0.5) / 0.5, atol=1e-6)


def test_logits_of_another_shape_are_refused(tmp_path):
    task = built(tiny_folder(tmp_path / "pictures", num_each=2))
    batch = task.collate([task.dataset("train")[0, 0]])
    with pytest.raises(ConfigError, match=r"the network gives a tensor of \(1, 7\) for a batch, and \(1, 3\) is wanted"):
        task.logits(lambda pixels: torch.zeros(1, 7), batch)


def test_a_sample_is_shown_as_a_picture(tmp_path):
    task = built(tiny_folder(tmp_path / "pictures", num_each=2))
    assert task.show_sample("validation", 3, tmp_path / "figures") == "![validation 3](figures/validation-3.png) `val/green/1.png`"
    with Image.open(tmp_path / "figures/validation-3.png") as image:
        assert image.size == (12, 12)


def test_pictures_inside_parquet_are_kept_with_their_labels(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    rows = []
    for number in range(10):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": "even" if number % 2 == 0 else "odd"})
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    changes = {
        "splits": {"train": "train.parquet", "validation": None},
        "validation_fraction": 0.2,
        "task": {"size": 8, "crop": "center", "flip": 0.0},
    }
    changes["task"]["augment"] = None
    task = built(tmp_path, **changes)
    assert task.num_samples == {"train": 8, "validation": 2}
    samples = task.dataset("train")
    for index in range(8):
        sample = samples[0, index]
        assert task.label_names[sample["label"]] == ("even" if int(sample["pixels"][0, 0, 0]) % 2 == 0 else "odd")
