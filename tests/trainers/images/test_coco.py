"""Annotation files of COCO's format: what is read of them, and what is refused in words, with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from launch.config.errors import ConfigError
from launch.config.experiment import Data
from launch.config.tasks import DetectionFasterRcnn
from tests.tiny_annotated import annotation, tiny_coco, write_coco
from trainers.images.boxes import box_problem, corners
from trainers.images.coco import IMAGE, OBJECTS, Annotation, load_annotated
from trainers.images.masks import decode_mask, draw_mask, encode_mask, outline_problem, read_mask
from trainers.reading.rows import BadRows
from trainers.tasks.detection_faster_rcnn import is_thing

SIZE = (32, 24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_coco(tmp_path / "coco")


def load(folder: Path, on_bad_row: str = "stop", **options: Any):
    bad_rows = BadRows(on_bad_row)
    data = Data.model_validate({"source": str(folder), "splits": {"train": "train.json", "validation": "val.json"}})
    return load_annotated(data, DetectionFasterRcnn(kind="detection_faster_rcnn", **options), bad_rows, is_thing), bad_rows


def change(folder: Path, edit: Callable[[dict[str, Any]], Any], name: str = "train.json") -> None:
    content = json.loads((folder / name).read_text())
    edit(content)
    write_coco(folder / name, content)


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        load(folder, **options)
    return str(error.value)


def bad(folder: Path) -> list[str]:
    return [str(problem) for problem in load(folder)[1].problems]


def test_categories_are_numbered_in_the_order_of_their_ids_wherever_these_begin(folder):
    found, bad_rows = load(folder)
    train = found.splits["train"]
    assert (found.label_names, found.notes, bad_rows.problems) == (["green", "red"], [], [])
    assert train.columns[IMAGE][3] == str(folder / "pictures/train_3.png")
    assert [len(objects) for objects in train.columns[OBJECTS]] == [1, 2, 1, 2, 1, 2]
    first = train.columns[OBJECTS][0][0]
    assert (first.place, first.box[2:], first.is_crowd, len(first.outline[0])) == ("annotations[0]", [10, 10], False, 8)


def test_chosen_categories_keep_their_order_and_the_others_are_counted(folder):
    found, _ = load(folder, label_names=["red"])
    objects = [thing for split in found.splits.values() for things in split.columns[OBJECTS] for thing in things]
    assert {thing.label for thing in objects} == {"red"}
    assert found.notes == [f"{13 - len(objects)} objects of categories that are not learned are left out: green"]
    assert "task.label_names" in refused(folder, label_names=["blue"])
    assert "has no category 'blue'\n    allowed: green, red" in refused(folder, label_names=["blue"])


def test_a_panoptic_files_segments_are_objects_and_its_stuff_is_not_learned(folder):
    segment = {"id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 1}
    sky = {"id": 6, "category_id": 9, "bbox": [0, 0, 32, 4], "iscrowd": 0}

    def edit(content):
        content["categories"].append({"id": 9, "name": "sky", "isthing": 0})
        content["annotations"] = [{"image_id": 101, "file_name": "train_1.png", "segments_info": [sky, segment]}]

    change(folder, edit)
    found, _ = load(folder)
    assert found.label_names == ["green", "red"]
    assert found.splits["train"].columns[OBJECTS][1] == [Annotation("annotations[0].segments_info[1]", "green", [1, 2, 3, 4], True, None)]


def test_pictures_beside_the_annotation_file_come_first_and_two_of_one_name_are_named(folder):
    (folder / "other").mkdir()
    (folder / "other/train_0.png").write_bytes((folder / "pictures/train_0.png").read_bytes())
    (told,) = bad(folder)
    assert told.startswith(f"{folder}/train.json: images[0]: train_0.png is there 2 times, {folder}/other/train_0.png and {folder}/pictures/")
    assert told.endswith("task.pictures names the folder that is meant")
    assert load(folder, pictures="pictures")[1].problems == []
    (folder / "train_0.png").write_bytes((folder / "pictures/train_0.png").read_bytes())
    assert load(folder)[0].splits["train"].columns[IMAGE][0] == str(folder / "train_0.png")
    assert f"there is no folder {folder}/nowhere" in refused(folder, pictures="nowhere")


def test_a_missing_picture_is_named_and_its_annotations_are_not(folder):
    (folder / "pictures/train_2.png").unlink()
    assert bad(folder) == [f"{folder}/train.json: images[2]: there is no train_2.png in {folder} or below it"]


def test_annotations_of_no_picture_or_category_are_named(folder):
    def edit(content):
        content["annotations"] += [annotation(999, 1, 1, 3), annotation(100, 1, 1, 4), "x"]
        content["images"] += [{"id": 100, "file_name": "val_0.png"}, {"id": 7}]

    change(folder, edit)
    place = f"{folder}/train.json"
    assert bad(folder) == [
        f"{place}: images[6]: another picture has the id 100 too",
        f"{place}: images[7]: is no picture with an id and a file_name: {{'id': 7}}",
        f"{place}: annotations[9]: is of a picture that the file does not list: image_id 999",
        f"{place}: annotations[10]: is of a category that the file does not list: category_id 4",
        f"{place}: annotations[11]: is no annotation: 'x'",
    ]


def test_values_of_another_type_are_not_taken_for_another_meaning(folder):
    def edit(content):
        content["annotations"][0]["iscrowd"] = "0"
        content["images"][1]["width"] = "32"
        content["images"][2] |= {"width": 32.5, "height": None}
        content["images"][3] |= {"width": 32.0, "height": 24.0}
        del content["images"][4]["height"]

    change(folder, edit)
    place = f"{folder}/train.json"
    assert bad(folder) == [
        f"{place}: images[1]: its width '32' or height 24 is no whole number",
        f"{place}: images[2]: its width 32.5 or height None is no whole number",
        f"{place}: annotations[0]: its iscrowd '0' is neither 0 nor 1",
    ]


def test_what_stands_twice_is_told(folder):
    change(folder, lambda content: content["annotations"].append(content["annotations"][0] | {"id": 5}))
    (note,) = load(folder)[0].notes
    assert note == "warning: 1 annotations of the train split repeat one of the same category and box"
    change(folder, lambda content: content["images"].append({"id": 7, "file_name": "train_0.png"}))
    assert bad(folder) == [f"{folder}/train.json: images[6]: {folder}/pictures/train_0.png is the picture of images[0] too"]
    change(folder, lambda content: content["images"].append({"id": 7, "file_name": "train_0.png"}), "val.json")
    assert load(folder)[0].notes[-1] == "warning: 1 pictures of the validation split are in the train split too"


def test_broken_json_is_named_with_its_line(folder):
    path = folder / "val.json"
    path.write_text('{"images": [],\n "annotations": [}\n')
    assert refused(folder).startswith(f"{path}:2: data.splits.validation: is no JSON: Expecting value")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"images": [' + "9" * 5000 + "]}", "cannot be read: Exceeds the limit (4300 digits)"),
        ("[" * 100_000, "is no annotation file: lists stand in lists without end"),
    ],
)
def test_json_that_python_does_not_read_is_named(folder, content, told):
    (folder / "train.json").write_text(content)
    assert refused(folder).startswith(f"{folder}/train.json: data.splits.train: {told}")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda content: content.pop("categories"), "has no list 'categories'\n    allowed: COCO's format"),
        (lambda content: content["categories"].append({"id": "x"}), "categories[2] has no id and name: {'id': 'x'}"),
        (lambda content: content["categories"].append({"id": 3, "name": "blue"}), "2 categories have the id 3"),
        (lambda content: content["categories"].append({"id": 4, "name": "red"}), "2 categories have the name 'red'"),
        (lambda content: content["categories"].clear(), "has no category that could be learned"),
    ],
)
def test_a_file_of_another_format_is_named(folder, edit, told):
    change(folder, edit)
    assert f"{folder}/train.json: data.splits.train: {told}" in refused(folder)


def test_a_split_that_is_not_there_is_told_what_is(folder):
    (folder / "val.json").rename(folder / "test.json")
    assert "there is no " in refused(folder)
    assert "there: test.json, train.json" in refused(folder)


def test_a_category_that_trains_file_lacks_is_refused(folder):
    def edit(content):
        content["categories"].append({"id": 1, "name": "blue"})
        content["annotations"][0]["category_id"] = 1

    change(folder, edit, "val.json")
    assert "data.splits.validation: the validation split has categories that train's file lacks: blue" in refused(folder)


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ([1, 2, 3, 4], None),
        ([-0.5, 0, 33, 24.9], None),
        ([30, 2, 4, 4], "reaches 2 pixels beyond the picture of 32 x 24"),
        ([-2, 2, 4, 4], "reaches 2 pixels beyond"),
        ([1, 20, 4, 6], "reaches 2 pixels beyond"),
        ([1, 2, 0, 4], "has no area"),
        ([1, 2, 3, -4], "has no area"),
        ([1, 2, 3], "is not [left, top, width, height]"),
        ([1, 2, 3, float("nan")], "is not [left"),
        ([1, 2, 10**400, 4], "0000... is not [left"),
        ([10**308, 2, 10**308, 4], "0000... is not [left"),
        (None, "is not [left"),
    ],
)
def test_a_box_is_inside_its_picture_and_has_an_area(box, told):
    problem = box_problem(box, SIZE)
    assert problem is None if told is None else told in problem


def test_boxes_become_corners_cut_to_the_picture():
    assert corners([-0.5, 2, 10, 5], SIZE) == [0.0, 2, 9.5, 7]
    assert corners([30, 20, 2.7, 4.5], SIZE) == [30, 20, 32.0, 24.0]


def thing(outline: Any, label: str = "green", is_crowd: bool = False) -> Annotation:
    return Annotation("annotations[0]", label, None, is_crowd, outline)


def square(left: int, top: int, edge: int = 4) -> list[list[int]]:
    return [[left, top, left + edge, top, left + edge, top + edge, left, top + edge]]


def test_outlines_become_a_mask_and_crowds_and_clashes_are_ignored():
    lengths = {"size": [24, 32], "counts": [24 * 28, 24 * 4]}  # the last four columns
    things = [
        thing(square(0, 0)),
        thing(square(2, 0), "red"),
        thing(square(10, 10), "red"),
        thing(square(12, 10), "red"),
        thing(lengths, "red", True),
    ]
    mask = draw_mask(things, {"green": 0, "red": 1}, SIZE, unlabelled=255)
    expected = np.full((24, 32), 255)
    expected[0:4, 0:2], expected[0:4, 4:6], expected[10:14, 10:16] = 0, 1, 1
    assert np.array_equal(mask, expected)
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)
    assert (draw_mask([], {}, SIZE, unlabelled=0) == 0).all()


@pytest.mark.parametrize(
    ("outline", "told"),
    [
        (None, "has no outline (segmentation), and task.masks names no folder"),
        (square(30, 0), "its polygon reaches 2 pixels beyond the picture of 32 x 24"),
        ([[1, 2, 3, 4]], "neither polygons of three points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "neither polygons"),
        ([], "neither polygons"),
        ([[1, 1, 10**400, 5, 3, 3]], "neither polygons"),
        ([[3, 3, 3, 3, 3, 3]], "has no area"),
        ({"size": [32, 24], "counts": [768]}, "are of [height, width] [32, 24], and the picture is 32 x 24"),
        ({"size": [24, 32], "counts": [700]}, "do not add up to 768 pixels"),
        ({"size": [24, 32], "counts": ""}, "do not add up to 768 pixels"),
        ({"size": [24, 32], "counts": "P1"}, "do not add up to 768 pixels"),
        ({"size": [24, 32], "counts": [-1, 769]}, "do not add up to 768 pixels"),
        ({"size": [24, 32], "counts": "PPYo0"}, "do not add up to 768 pixels"),
        ({"size": [24, 32], "counts": "ooo"}, "are neither a list of whole numbers nor COCO's compressed text"),
        ({"size": [24, 32], "counts": "\ud800"}, "are neither a list"),
        ({"size": [24, 32]}, "are neither a list"),
        (square(1, 1), None),
    ],
)
def test_what_is_no_outline_is_said(outline, told):
    problem = outline_problem(outline, SIZE)
    assert problem is None if told is None else told in problem


def test_compressed_run_lengths_are_read_as_pycocotools_writes_them():
    source = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98):
        inside = source.random((24, 32)) < share
        inside[5:15, 8:30] = True
        counts = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))["counts"].decode()
        outline = {"size": [24, 32], "counts": counts}
        assert outline_problem(outline, SIZE) is None
        assert np.array_equal(draw_mask([thing(outline)], {"green": 1}, SIZE, unlabelled=0), inside)


def test_a_mask_file_holds_category_ids(tmp_path):
    ids = np.zeros((24, 32), np.uint8)
    ids[0, :4] = [7, 3, 9, 255]
    path = str(tmp_path / "mask.png")
    Image.fromarray(ids).save(path)
    mask = read_mask(path, SIZE, {3: 0, 7: 1, 9: 255, 300: 2}, 255)
    assert mask[0].tolist()[:5] == [1, 0, 255, 255, 255]
    assert read_mask(path, SIZE, {3: 0, 7: 1, 9: 0}, 0)[0].tolist()[:5] == [1, 0, 0, 255, 0]
    assert read_mask(path, SIZE, {3: 0, 7: 1, 9: 1, 255: 2}, 255)[0].tolist()[:5] == [1, 0, 1, 2, 255]
    assert read_mask(path, SIZE, {3: 0, 7: 1}, 255) == "holds the value 9, which is no category's id"
    assert read_mask(path, (24, 32), {3: 0, 7: 1, 9: 2}, 255) == "is 32 x 24, and its picture 24 x 32"
    Image.fromarray(ids).convert("RGB").save(path)
    assert "its mode is RGB; a mask is grey (L) or has a palette (P)" in read_mask(path, SIZE, {}, 255)
    Path(path).write_bytes(b"x")
    assert "cannot be read: cannot identify image file" in read_mask(path, SIZE, {}, 255)
