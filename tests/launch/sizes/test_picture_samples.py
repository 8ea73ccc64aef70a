"""Pictures are counted as the trainer will find them, without reading one."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from launch.config import prepared
from launch.config.load import load_experiment
from launch.config.sources import LocalPath
from launch.sizes.samples import SampleCount, count_train_samples

EXPERIMENT = """\
name: pictures
model: {source: 'torchvision://resnet18?weights=null'}
task: {kind: image_classification}
data: {source: ./pictures, splits: {train: train, validation: null}}
train: {duration: 1 epoch, global_batch_size: 8}
optimizer: {lr: 0.1}
"""


def counted(folder: Path, *overrides: str) -> SampleCount:
    path = folder.parent / "pictures.yaml"
    path.write_text(EXPERIMENT)
    return count_train_samples(load_experiment(str(path), (f"data.source={folder}", *overrides)).experiment, LocalPath(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of train, one of val, and files that are none."""
    folder = tmp_path / "pictures"
    names = ["train/a/1.png", "train/a/deep/2.JPG", "train/b/3.webp", "train/b/.4.png", "train/b/notes.txt", "train/.c/5.png", "train/6.png"]
    for name in [*names, "val/a/7.png", "training/a/8.png"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_folders_pictures_are_counted_and_nothing_else(folder: Path) -> None:
    assert counted(folder) == SampleCount(3)
    assert counted(folder / "train", "data.splits.train=.") == SampleCount(3)
    assert counted(folder, "data.splits.train=./train/") == SampleCount(3)
    assert counted(folder, "task.label_names=[b, z]") == SampleCount(1)
    assert counted(folder, "data.limit=2") == SampleCount(2)
    assert counted(folder, "data.validation_fraction=0.3") == SampleCount(2)
    assert counted(folder, "data.on_bad_row=skip").num_samples is None


def test_links_are_followed_as_the_trainer_does(folder: Path) -> None:
    (folder / "train/c").symlink_to(folder / "val/a")
    (folder / "train/a/linked").symlink_to(folder / "val/a")
    assert counted(folder) == SampleCount(4)
    assert counted(folder / "train", "data.splits.train=.") == SampleCount(4)


def test_a_folder_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    files_below = prepared._files_below
    monkeypatch.setattr(prepared, "_files_below", lambda folder, prefix, depth: listed.append(prefix) or files_below(folder, prefix, depth))
    counted(folder)
    assert listed.count("") == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_header_says_how_many(tmp_path: Path, zipped: bool) -> None:
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (60_000, 28, 28))
    path = tmp_path / f"train-images-idx3-ubyte{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(header) if zipped else header)
    assert counted(tmp_path) == SampleCount(60_000)
    path.write_bytes(gzip.compress(header)[:12] if zipped else header[:3])
    assert counted(tmp_path).num_samples is None


def test_cifars_files_are_records_of_one_size(tmp_path: Path) -> None:
    for number in range(1, 6):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(bytes(3073 * number))
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    assert counted(tmp_path) == SampleCount(15)
    (tmp_path / "data_batch_5.bin").unlink()
    assert counted(tmp_path) == SampleCount(None, "the data has not been prepared yet")


def test_published_pickles_are_not_opened(tmp_path: Path) -> None:
    for name in ("meta", "train"):
        (tmp_path / name).write_bytes(b"")
    assert counted(tmp_path) == SampleCount(50_000)


def test_a_source_that_is_not_there_is_no_error_here(tmp_path: Path) -> None:
    assert counted(tmp_path / "nowhere") == SampleCount(None, f"there is no {tmp_path}/nowhere")


def test_a_folder_without_pictures_is_left_to_the_trainer(tmp_path: Path) -> None:
    assert counted(tmp_path) == SampleCount(None, "the data has not been prepared yet")


def test_the_pictures_that_an_annotation_file_lists_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "train.json").write_text('{"images": [{"id": 1}, {"id": 2}, {"id": 3}], "annotations": [], "categories": []}')
    chosen = ("task={kind: detection_faster_rcnn}", "data.splits.train=train.json")
    assert counted(folder, *chosen) == SampleCount(3)
    assert counted(folder, *chosen, "data.limit=2") == SampleCount(2)
    masks = ("task={kind: segmentation_fcn, unlabelled: background}", *chosen[1:])
    assert counted(folder, *masks) == SampleCount(3)
    assert "pictures without a labelled pixel" in (counted(folder, *masks, "task.unlabelled=ignore").reason or "")
    monkeypatch.setattr("launch.sizes.picture_samples.QUICKLY_READ", 10)
    assert counted(folder, *chosen).num_samples is None
    (folder / "train.json").write_text("{")
    monkeypatch.undo()
    assert counted(folder, *chosen).num_samples is None
