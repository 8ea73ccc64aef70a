"""Folders of classes, IDX and CIFAR files, parquet: what is read, and what is refused in words."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.config.data import Data
from launch.config.errors import ConfigError
from launch.config.tasks import ImageClassification
from tests.tiny_pictures import tiny_folder
from trainers.images import cifar
from trainers.images.readers import load_pictures
from trainers.reading.rows import BadRows

OPTIONS = ImageClassification(kind="image_classification")


def load(source: Path, **data):
    splits, notes = load_pictures(Data.model_validate({"source": str(source), **data}), OPTIONS, BadRows("stop"))
    return splits, notes


def refused(source: Path, **data) -> str:
    with pytest.raises(ConfigError) as error:
        load(source, **data)
    return str(error.value)


def test_folders_are_classes_in_alphabetical_order(tmp_path):
    splits, _ = load(tiny_folder(tmp_path, num_each=2), splits={"validation": "val"})
    train = splits["train"]
    assert train.class_names["label"] == ["blue", "green", "red"]
    assert list(train.columns["label"]) == ["blue", "blue", "green", "green", "red", "red"]
    assert train.columns["image"][0] == str(tmp_path / "train/blue/0.png")


def test_the_folder_of_the_classes_itself_is_the_train_split(tmp_path):
    folder = tiny_folder(tmp_path, num_each=2)
    splits, _ = load(folder / "train", splits={"train": ".", "validation": None})
    assert len(splits["train"]) == 6
    assert "try: data.splits.train=. if these are the classes" in refused(folder / "train", splits={"validation": None})


def test_other_files_are_counted_and_hidden_ones_ignored(tmp_path):
    folder = tiny_folder(tmp_path, num_each=1)
    (folder / "train/red/notes.txt").write_text("x")
    (folder / "train/red/.DS_Store").write_text("x")
    _, notes = load(folder, splits={"validation": "val"})
    assert notes == ["1 files of .txt are no pictures and were passed over"]


def test_pictures_beside_the_folders_of_the_classes_are_told(tmp_path):
    folder = tiny_folder(tmp_path, num_each=1)
    for name in ("1.png", "2.PNG", ".3.png"):
        (folder / "train" / name).write_bytes(b"x")
    _, notes = load(folder, splits={"validation": "val"})
    assert notes == [f"warning: 2 pictures of {folder}/train lie in no folder, so they have no class, and were passed over"]


def test_a_class_that_train_lacks_is_named(tmp_path):
    folder = tiny_folder(tmp_path, num_each=1)
    (folder / "val/violet").mkdir()
    assert "the validation split has classes that train lacks: violet" in refused(folder, splits={"validation": "val"})


def test_columns_that_a_format_does_not_have_are_told(tmp_path):
    folder = tiny_folder(tmp_path, num_each=1)
    write_idx(tmp_path / "idx-images-idx3-ubyte", np.zeros((3, 4, 5)))
    write_idx(tmp_path / "idx-labels-idx1-ubyte", np.zeros(3))
    wanted = Data(source=str(folder), format="image_folder", splits={"train": "train", "validation": None})
    for data in (wanted, wanted.model_copy(update={"format": "idx", "splits": wanted.splits.model_copy(update={"train": "idx"})})):
        for options, told in (({}, []), ({"image": "img"}, [f"task.image=img is not used: data of the format {data.format} has no columns"])):
            _, notes = load_pictures(data, ImageClassification(kind="image_classification", **options), BadRows("stop"))
            assert notes == told


def test_one_folder_is_no_classification(tmp_path):
    (tmp_path / "train/only").mkdir(parents=True)
    assert "holds one folder, and each folder of it is a class" in refused(tmp_path, splits={"validation": None}, format="image_folder")


def test_a_split_without_a_folder_is_named(tmp_path):
    assert "there is no folder" in refused(tiny_folder(tmp_path, num_each=1))


def write_idx(path: Path, values: np.ndarray, zipped: bool = False) -> None:
    content = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read_gzipped_or_not(tmp_path, zipped):
    images, ending = np.arange(3 * 4 * 5).reshape(3, 4, 5), ".gz" if zipped else ""
    write_idx(tmp_path / f"train-images-idx3-ubyte{ending}", images, zipped)
    write_idx(tmp_path / f"train-labels-idx1-ubyte{ending}", np.array([7, 0, 2]), zipped)
    splits, _ = load(tmp_path, splits={"validation": None})
    assert splits["train"].columns["label"] == [7, 0, 2]
    assert np.array_equal(splits["train"].columns["image"][1], images[1, :, :, None])
    assert "allowed: its splits: train" in refused(tmp_path, splits={"validation": None, "test": "test"})


def test_a_cut_idx_file_says_how_much_is_missing(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 5)))
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-7])
    assert "holds 53 values, and its header says 3 x 4 x 5 = 60" in refused(tmp_path, splits={"validation": None})


def test_idx_labels_must_be_as_many_as_the_pictures(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 5)))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(2))
    assert "2 labels for 3 pictures" in refused(tmp_path, splits={"validation": None})


def test_a_cut_gzip_is_named(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"x" * 100)[:-9])
    assert "is not a whole gzip file" in refused(tmp_path, splits={"validation": None})


def write_cifar10(folder: Path, num_each: int = 2) -> None:
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("cat\ndog\n\n")
    for number in range(1, 6):
        rows = [bytes([row % 2]) + bytes([number * 10 + row]) * cifar.CIFAR_PIXELS for row in range(num_each)]
        (folder / f"data_batch_{number}.bin").write_bytes(b"".join(rows))
    (folder / "test_batch.bin").write_bytes(bytes([1]) + bytes(range(256)) * 12)


def test_cifars_binary_layout_is_read_in_the_order_of_its_files(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    splits, _ = load(tmp_path, splits={"validation": None, "test": "test"})
    assert splits["train"].class_names == {"label": ["cat", "dog"]}
    assert splits["train"].columns["label"] == [0, 1] * 5
    assert [int(image[0, 0, 0]) for image in splits["train"].columns["image"]] == [10, 11, 20, 21, 30, 31, 40, 41, 50, 51]
    assert splits["test"].columns["image"][0][0, :3, 1].tolist() == [0, 1, 2]  # the second plane is green


def test_a_cut_cifar_file_is_named(tmp_path):
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    path = tmp_path / "cifar-10-batches-bin/data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "6145 bytes are no whole number of records of 3073" in refused(tmp_path, splits={"validation": None})


def write_pickled_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch, train: object) -> None:
    folder.mkdir()
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["cat", "dog"]}, protocol=2))
    (folder / "train").write_bytes(pickle.dumps(train, protocol=2))
    known = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in ("meta", "train")}
    monkeypatch.setattr(cifar, "published_checksums", lambda: known)


def test_the_published_pickles_are_read(tmp_path, monkeypatch):
    content = {"data": np.full((2, cifar.CIFAR_PIXELS), 9, dtype=np.uint8), "fine_labels": [1, 0]}
    write_pickled_cifar(tmp_path / "cifar-100-python", monkeypatch, content)
    splits, _ = load(tmp_path, splits={"validation": None})
    assert splits["train"].columns["label"] == [1, 0]
    assert splits["train"].columns["image"].shape == (2, 32, 32, 3)


def test_any_other_pickle_is_refused_unread(tmp_path, monkeypatch):
    write_pickled_cifar(tmp_path / "cifar-100-python", monkeypatch, Boom())
    monkeypatch.undo()
    assert "is a pickle, which can run any code, and not the one that was published" in refused(tmp_path, splits={"validation": None})


def test_even_a_known_pickle_brings_arrays_only(tmp_path, monkeypatch):
    write_pickled_cifar(tmp_path / "cifar-100-python", monkeypatch, Boom())
    with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
        load(tmp_path, splits={"validation": None})


class Boom:
    def __reduce__(self):
        return print, ("a pickle ran",)


def test_the_published_checksums_are_torchvisions_own():
    known = cifar.published_checksums()
    assert len(known) == 10
    assert known["meta"] != known["batches.meta"]


def test_parquet_of_the_hubs_layout_is_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    rows = [{"image": {"bytes": file.getvalue(), "path": None}, "label": n % 2} for n in range(4)]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    splits, _ = load(tmp_path, splits={"train": "train.parquet", "validation": None})
    assert splits["train"].columns["image"][2]["bytes"] == file.getvalue()
    assert list(splits["train"].columns["label"]) == [0, 1, 0, 1]


def test_a_table_of_texts_is_no_format_of_pictures(tmp_path):
    assert "csv is no format of pictures" in refused(tmp_path, format="csv")
