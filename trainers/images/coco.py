"""Reads annotation files of COCO's format (cocodataset.org/#format-data): which pictures there are, and what is where in them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from launch.config.annotation_files import read_annotation_file
from launch.config.data import Data
from launch.config.errors import ConfigError, Problem
from launch.config.sources import HubName
from launch.config.tasks import AnnotatedPictures
from trainers.reading.rows import BadRows, Split, shortened
from trainers.sources import locate

IMAGE, SIZE, OBJECTS = "image", "size", "objects"
"""Columns of a split: the picture's path, (width, height) as its file says or None, and its annotations."""

Category = Mapping[str, Any]


@dataclass(frozen=True)
class Annotation:
    """One object, or one crowd of them.

    Args:
        place: where it stands in its file: `annotations[17]`, or `annotations[3].segments_info[2]`.
        label: name of its category.
        box: left, top, width and height in pixels, as its file says it.
        outline: polygons [[x, y, x, y, ...], ...], or run lengths {size, counts}; None: its file has none.
    """

    place: str
    label: str
    box: Any
    is_crowd: bool
    outline: Any


@dataclass(frozen=True)
class Annotated:
    """What the files of all splits hold.

    Args:
        label_names: the categories that are learned.
        names_by_id: split -> category id -> name.
    """

    splits: dict[str, Split]
    label_names: list[str]
    names_by_id: dict[str, dict[int, str]]
    notes: list[str]


def load_annotated(
    data: Data, options: AnnotatedPictures, bad_rows: BadRows, may_learn: Callable[[Category], bool] = lambda _: True, masks: str | None = None
) -> Annotated:
    """Returns the pictures of each split with what is annotated in them; objects of categories that are not learned are left out.

    Args:
        may_learn: whether a category of the train split's file can be learned.
        masks: folder, from data.source on, in which no picture is looked for.

    Raises:
        ConfigError: a file that is not there, is no JSON or not of this format; categories that train does not have.
    """
    if data.format not in ("auto", "coco"):
        raise ConfigError(Problem(f"{data.format} is no format of annotated pictures", key="data.format", allowed="auto, coco"))
    source = locate(data.source, "data.source")
    if isinstance(source, HubName):
        what = f"{data.source!r} is no folder of pictures and annotation files"
        raise ConfigError(Problem(what, key="data.source", allowed="a path, or pypi://NAME==VERSION/path#sha256=..."))
    wanted = {split: name for split, name in data.splits.model_dump().items() if name is not None}
    files = {split: _AnnotationFile(source / name, f"data.splits.{split}") for split, name in wanted.items()}
    names = _label_names(files["train"], options, may_learn)
    pictures, left_out = FilesBelow(source / options.pictures, "task.pictures", source / masks if masks else None), Counter[str]()
    splits = {split: _read_split(file, pictures, names, bad_rows, left_out) for split, file in files.items()}
    if options.label_names is None:
        _refuse_unknown(files, names, may_learn)
    return Annotated(splits, names, {split: file.names for split, file in files.items()}, _notes(splits, left_out))


class FilesBelow:
    """The files in a folder and in those below it but one, found by their last names."""

    def __init__(self, folder: Path, key: str, without: Path | None = None) -> None:
        self._folder, self._key, self._without = folder, key, None if without is None else os.path.abspath(without)

    def find(self, name: str, beside: Path | None = None) -> tuple[str | None, str]:
        """Returns the path of the one file of this name, else None, and what is wrong.

        Args:
            name: may begin with folders.
            beside: a file in whose own folder is looked first.
        """
        if beside is not None and (beside.parent / name).is_file():
            return str(beside.parent / name), ""
        parts = PurePath(name).parts
        found = [path for path in self._by_name.get(parts[-1] if parts else "", []) if PurePath(path).parts[-len(parts) :] == parts]
        if len(found) == 1:
            return found[0], ""
        if not found:
            return None, f"there is no {name} in {self._folder} or below it"
        return None, f"{name} is there {len(found)} times, {found[0]} and {found[1]}: {self._key} names the folder that is meant"

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        if not self._folder.is_dir():
            raise ConfigError(Problem(f"there is no folder {self._folder}", key=self._key))
        found = defaultdict(list)
        for parent, folders, files in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if os.path.abspath(os.path.join(parent, name)) != self._without)
            for file in sorted(files):
                found[file].append(os.path.join(parent, file))
        return found


class _AnnotationFile:
    """One file, its three lists checked to be lists of objects."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        content = read_annotation_file(path, key)
        self.images: list[Any] = content["images"]
        self.annotations: list[Any] = content["annotations"]
        self.categories: list[Category] = sorted(content["categories"], key=lambda category: category["id"])
        self.names: dict[int, str] = {category["id"]: category["name"] for category in self.categories}
        for what, values in (("id", [c["id"] for c in self.categories]), ("name", [c["name"] for c in self.categories])):
            for value, count in Counter(values).items():
                if count > 1:
                    raise ConfigError(Problem(f"{count} categories have the {what} {value!r}", str(path), key, allowed="each once"))

    @cached_property
    def used_names(self) -> set[str]:
        """Names of the categories that annotations have."""
        return {self.names[record["category_id"]] for _, record in _objects(self.annotations) if _is_known(record, self.names)}


def _label_names(train: _AnnotationFile, options: AnnotatedPictures, may_learn: Callable[[Category], bool]) -> list[str]:
    known = [category["name"] for category in train.categories if may_learn(category)]
    if options.label_names is None:
        if not known:
            raise ConfigError(Problem("has no category that could be learned", str(train.path), train.key))
        return known
    unknown = [name for name in options.label_names if name not in known]
    if unknown:
        raise ConfigError(Problem(f"{train.path} has no category {unknown[0]!r}", key="task.label_names", allowed=shortened(", ".join(known), 400)))
    return options.label_names


def _refuse_unknown(files: Mapping[str, _AnnotationFile], names: Sequence[str], may_learn: Callable[[Category], bool]) -> None:
    """Raises ConfigError where a split has objects of a category that train's file does not list: nobody could learn it."""
    for split, file in files.items():
        known = {category["name"] for category in file.categories if may_learn(category)}
        unknown = sorted((known & file.used_names) - set(names))
        if unknown:
            what = f"the {split} split has categories that train's file lacks: {', '.join(unknown[:20])}"
            raise ConfigError(Problem(what, str(file.path), file.key, fix="one list of categories for all files, or task.label_names=[...]"))


def _read_split(file: _AnnotationFile, pictures: FilesBelow, names: Sequence[str], bad_rows: BadRows, left_out: Counter[str]) -> Split:
    """Returns the pictures that are there, each with its objects; what is wrong goes to `bad_rows`."""
    origin, objects = str(file.path), dict[Any, list[Annotation]]()
    listed: list[tuple[str, Any, str]] = []
    places: dict[str, str] = {}
    for number, image in enumerate(file.images):
        place, name = f"images[{number}]", image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name or not _is_id(image.get("id")):
            bad_rows.add(f"{origin}: {place}", f"is no picture with an id and a file_name: {shortened(repr(image))}")
            continue
        if image["id"] in objects:
            bad_rows.add(f"{origin}: {place}", f"another picture has the id {image['id']!r} too")
            continue
        objects[image["id"]] = []
        path, missing = pictures.find(name, beside=file.path)
        if path is None:
            bad_rows.add(f"{origin}: {place}", missing)
            continue
        if places.setdefault(path, place) != place:
            bad_rows.add(f"{origin}: {place}", f"{path} is the picture of {places[path]} too")
            continue
        size = (image.get("width"), image.get("height"))
        if not all(edge is None or (isinstance(edge, int | float) and edge == edge // 1) for edge in size):
            bad_rows.add(f"{origin}: {place}", f"its width {shortened(repr(size[0]))} or height {shortened(repr(size[1]))} is no whole number")
            continue
        listed.append((path, None if None in size else size, image["id"]))
    for place, record in _objects(file.annotations):
        problem = _object_problem(record, file.names, objects)
        if problem:
            bad_rows.add(f"{origin}: {place}", problem)
        elif file.names[record["category_id"]] in names:
            label, is_crowd = file.names[record["category_id"]], bool(record.get("iscrowd", 0))
            objects[record["image_id"]].append(Annotation(place, label, record.get("bbox"), is_crowd, record.get("segmentation")))
        else:
            left_out[file.names[record["category_id"]]] += 1
    columns: dict[str, list[Any]] = {
        IMAGE: [path for path, _, _ in listed],
        SIZE: [size for _, size, _ in listed],
        OBJECTS: [objects[id_] for _, _, id_ in listed],
    }
    return Split(columns, origin, range(len(listed)), is_text_file=False)


def _notes(splits: Mapping[str, Split], left_out: Counter[str]) -> list[str]:
    """Returns how many objects are left out, and what stands twice: objects in a picture, or pictures in two splits."""
    named = ", ".join(name for name, _ in left_out.most_common(5)) + (", ..." if len(left_out) > 5 else "")
    notes = [f"{left_out.total()} objects of categories that are not learned are left out: {named}"] if left_out else []
    for split, rows in splits.items():
        num_shared = len({*rows.columns[IMAGE]} & {*splits["train"].columns[IMAGE]}) if split != "train" else 0
        if num_shared:
            notes.append(f"warning: {num_shared} pictures of the {split} split are in the train split too")
        boxes = ([(thing.label, repr(thing.box)) for thing in objects if thing.box is not None] for objects in rows.columns[OBJECTS])
        num_repeated = sum(len(found) - len(set(found)) for found in boxes)
        if num_repeated:
            notes.append(f"warning: {num_repeated} annotations of the {split} split repeat one of the same category and box")
    return notes


def _objects(annotations: Sequence[Any]) -> list[tuple[str, Any]]:
    """Returns (place, object) of an instances file; of a panoptic one the segments, each with the id of its picture."""
    found = []
    for number, record in enumerate(annotations):
        place, segments = f"annotations[{number}]", record.get("segments_info") if isinstance(record, dict) else None
        if isinstance(segments, list):
            for part, segment in enumerate(segments):
                whole = segment | {"image_id": record.get("image_id")} if isinstance(segment, dict) else segment
                found.append((f"{place}.segments_info[{part}]", whole))
        else:
            found.append((place, record))
    return found


def _object_problem(record: Any, names: Mapping[int, str], objects: Mapping[Any, Any]) -> str | None:
    if not isinstance(record, dict):
        return f"is no annotation: {shortened(repr(record))}"
    if not _is_id(record.get("image_id")) or record["image_id"] not in objects:
        return f"is of a picture that the file does not list: image_id {record.get('image_id')!r}"
    if not _is_known(record, names):
        return f"is of a category that the file does not list: category_id {record.get('category_id')!r}"
    if record.get("iscrowd") not in (None, 0, 1):
        return f"its iscrowd {shortened(repr(record['iscrowd']))} is neither 0 nor 1"
    return None


def _is_known(record: Any, names: Mapping[int, str]) -> bool:
    return isinstance(record, dict) and isinstance(record.get("category_id"), int) and record["category_id"] in names


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)
