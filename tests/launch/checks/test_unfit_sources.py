"""What a first line and a folder's names tell is refused before anything starts."""

from __future__ import annotations

import pytest

from launch.checks.unfit_sources import find_unfit_sources
from launch.config.load import load_experiment
from launch.config.sources import LocalPath


@pytest.fixture
def unfit(experiment_file):
    """Returns the problems of a source as text; the task's columns are sentence and label."""

    def find(path, *overrides):
        experiment = load_experiment(str(experiment_file), (f"data.source={path}", *overrides)).experiment
        return "\n".join(map(str, find_unfit_sources(experiment, LocalPath(path))))

    return find


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "text,label\ngood,1\n"),
        ("a.tsv", "text\tlabel\ngood\t1\n"),
        ("a.jsonl", '\n{"text": "good", "label": 1}\n'),
        ("a.CSV", "\ufefftext,label\n"),
    ],
)
def test_table_without_the_tasks_column_names_its_columns(tmp_path, unfit, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = unfit(tmp_path / name)
    assert f"task.text: {tmp_path / name} has no column 'sentence'" in found
    assert "allowed: the columns: text, label" in found
    assert "task.label" not in found
    assert unfit(tmp_path / name, "task.text=text") == ""


@pytest.mark.parametrize(("name", "content", "shown"), [("a.tsv", b"gr\xf6\n", "gr\\udcf6"), ("a.jsonl", b'{"gr\\ud800": 1}', "gr\\ud800")])
def test_names_of_columns_that_are_no_text_can_be_printed(tmp_path, unfit, name, content, shown):
    (tmp_path / name).write_bytes(content)
    assert f"allowed: the columns: {shown}" in unfit(tmp_path / name)


def test_every_named_split_is_looked_at(tmp_path, unfit):
    (tmp_path / "train.csv").write_text("sentence,label\n")
    (tmp_path / "dev.csv").write_text("sentence,class\n")
    found = unfit(tmp_path, "data.splits.train=train.csv", "data.splits.validation=dev.csv")
    assert f"task.label: {tmp_path / 'dev.csv'} has no column 'label'" in found
    assert "train.csv" not in found


@pytest.mark.parametrize(
    ("name", "text", "overrides"),
    [
        ("a.csv", "good,1\n", ["data.columns=[sentence, label]"]),
        ("a.jsonl", '{"other": 1}\n', ["data.on_bad_row=skip"]),
        ("a.jsonl", "no json\n", []),
        ("a.jsonl", "[" * 100_000, []),
        ("a.csv", "", []),
        ("a.parquet", "PAR1", []),
    ],
)
def test_what_a_first_line_does_not_tell_is_left_to_the_ranks(tmp_path, unfit, name, text, overrides):
    (tmp_path / name).write_text(text)
    assert unfit(tmp_path / name, *overrides) == ""


@pytest.mark.parametrize(
    ("name", "begins", "overrides", "found"),
    [
        ("a.csv", b"PAR1....", [], "data.format: is a parquet file, not csv"),
        ("a.tsv", b"\x1f\x8b\x08", [], "data.format: is a gzip archive, not tsv\n    try: unpack it"),
        ("a.parquet", b"sentence,label\n", [], "data.format: is no parquet file"),
        (
            "a.tsv",
            "sentence\tlabel\n".encode("utf-16"),
            [],
            "data.encoding: begins with the byte order mark of UTF-16, and is no utf-8",
        ),
        ("a.tsv", b"sentence\tlabel\n", ["data.encoding=utf-16"], "data.encoding: is not utf-16: "),
        ("a.tsv", b"sentence\tlabel\tlabel\n", [], "data.columns: the column 'label' stands 2 times"),
        ("a.json", b'["sentence"]', ["data.format=squad"], "data.format: is no SQuAD file: it does not begin with {"),
    ],
)
def test_file_that_begins_unlike_its_format_says_what_it_is(tmp_path, unfit, name, begins, overrides, found):
    (tmp_path / name).write_bytes(begins)
    assert found in unfit(tmp_path / name, *overrides)


@pytest.fixture
def unfit_folder(tmp_path):
    """Returns the problems of a folder of pictures as text."""

    def find(*overrides):
        words = [f"data.source={tmp_path}", "data.splits.validation=null", *overrides]
        experiment = load_experiment("image_folder_frozen", words).experiment
        return "\n".join(map(str, find_unfit_sources(experiment, LocalPath(tmp_path))))

    return find


def test_folder_of_pictures_without_the_split_names_what_is_there(tmp_path, unfit_folder):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    assert unfit_folder() == (
        f"data.splits.train: there is no folder {tmp_path / 'train'}\n"
        "    allowed: a folder of it: cat, dog\n"
        "    try: data.splits.train=. if these are the classes"
    )
    assert unfit_folder("data.splits.train=.") == ""


def test_train_split_of_one_class_is_refused_and_another_format_left_to_the_ranks(tmp_path, unfit_folder):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    assert "holds one folder, and each folder of it is a class" in unfit_folder()
    assert unfit_folder("data.format=parquet") == ""
    (tmp_path / "train" / "0000.parquet").touch()
    assert unfit_folder("data.format=auto") == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"images": [\n{"id": 1,}]}', "train.json:2: data.splits.train: is no JSON"),
        ('{"images": []}', "train.json: data.splits.train: has no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "train.json: data.splits.train: categories[0] has no id and name"),
        ('{"images": [], "annotations": [], "categories": []}', ""),
    ],
)
def test_an_annotation_file_of_another_format_is_told_before_anything_starts(tmp_path, unfit, text, told, monkeypatch):
    (tmp_path / "train.json").write_text(text)
    chosen = ("task={kind: detection_faster_rcnn}", "data.splits.train=train.json", "data.splits.validation=absent.json")  # absence is told elsewhere
    found = unfit(tmp_path, *chosen)
    assert (told in found) if told else found == ""
    monkeypatch.setattr("launch.checks.unfit_sources.QUICKLY_READ", 1)
    assert unfit(tmp_path, *chosen) == ""


COLOURS = '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "red"}]}'


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("{kind: segmentation_fcn, masks: nosuch}", "task.masks: there is no folder {folder}/nosuch"),
        ("{kind: detection_faster_rcnn, pictures: nosuch}", "task.pictures: there is no folder {folder}/nosuch"),
        (
            "{kind: segmentation_fcn, label_names: [red, blue]}",
            "task.label_names: {folder}/train.json has no category 'blue'\n    allowed: red",
        ),
        ("{kind: segmentation_fcn, label_names: [red]}", ""),
    ],
)
def test_folders_and_categories_beside_an_annotation_file_are_looked_for(tmp_path, unfit, task, told):
    (tmp_path / "train.json").write_text(COLOURS)
    chosen = (f"task={task}", "data.splits.train=train.json", "data.splits.validation=null")
    assert unfit(tmp_path, *chosen) == told.format(folder=tmp_path)


def test_a_table_of_ratings_has_the_columns_of_the_task(tmp_path, unfit):
    (tmp_path / "a.csv").write_text("user;item;rating\n")
    found = unfit(tmp_path / "a.csv", "task={kind: recommender_autoencoder, rating: null}")
    assert f"task.user: {tmp_path}/a.csv has no column 'user'\n    allowed: the columns: user;item;rating" in found
    assert "task.item" in found
    assert "task.rating" not in found


@pytest.mark.parametrize(
    ("pattern", "names", "told"),
    [
        ("*.xyz", ".*_(?P<text>[ab])\\.wav", "data.splits.validation: no recording of {folder} matches '*.xyz'"),
        ("1_*.wav", ".*_(?P<text>[ab])\\.wav", "data.splits.validation: 1 recordings are in the train split too, e.g. 1_a.wav"),
        ("2_*.wav", "(?P<text>x)", "task.name_pattern: matches no name of the train split's 1 recordings, e.g. 1_a.wav"),
        ("2_*.wav", ".*_(?P<text>[ab])\\.wav", ""),
    ],
)
def test_patterns_of_a_folder_of_recordings_are_tried(tmp_path, unfit, pattern, names, told):
    for name in ("1_a.wav", "2_b.wav"):
        (tmp_path / name).touch()
    splits = ("data.splits.train=1_*.wav", f"data.splits.validation={pattern}")
    found = unfit(tmp_path, f"task={{kind: speech_ctc, name_pattern: '{names}'}}", *splits)
    assert found.startswith(told.format(folder=tmp_path)) if told else found == ""


def test_a_table_of_recordings_has_the_columns_of_the_task(tmp_path, unfit):
    (tmp_path / "train.tsv").write_text("path\ttext\n")
    found = unfit(tmp_path, "task={kind: speech_ctc}", "data.splits.train=train.tsv", "data.splits.validation=null")
    assert f"task.audio: {tmp_path}/train.tsv has no column 'audio'" in found
