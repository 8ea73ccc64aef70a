"""Pictures of bright squares with annotation files of COCO's format, small enough for a test."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from launch.config.experiment import Experiment

CATEGORIES = [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}]
"""Ids that begin neither at 0 nor at 1, out of order: green is the first class."""
WIDTH, HEIGHT = 32, 24


def tiny_coco(folder: Path, num_train: int = 6, num_val: int = 3) -> Path:
    """Writes train.json, val.json and pictures/SPLIT_N.png, with one or two squares of the colour of their category each; returns the folder."""
    source = random.Random(0)
    for split, num_pictures in {"train": num_train, "val": num_val}.items():
        content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": CATEGORIES}
        for number in range(num_pictures):
            content["images"].append({"id": 100 + number, "file_name": f"{split}_{number}.png", "width": WIDTH, "height": HEIGHT})
            boxes = [(*_corner(source), CATEGORIES[source.randrange(2)]) for _ in range(1 + number % 2)]
            write_squares(folder / "pictures" / f"{split}_{number}.png", [(left, top, kind["name"]) for left, top, kind in boxes])
            content["annotations"] += [annotation(100 + number, left, top, kind["id"]) for left, top, kind in boxes]
        write_coco(folder / f"{split}.json", content)
    return folder


def annotated_experiment(folder: Path, model: dict[str, Any], task: dict[str, Any], data: dict[str, Any]) -> Experiment:
    """Returns an experiment on what tiny_coco wrote."""
    source = {"source": str(folder), "splits": {"train": "train.json", "validation": "val.json"}}
    train = {"train": {"duration": "1 epoch", "global_batch_size": 4}, "optimizer": {"lr": 0.1}}
    return Experiment.model_validate({"name": "marks", "model": model, "task": task, "data": source | data, **train})


def annotation(image_id: int, left: int, top: int, category_id: int, edge: int = 10) -> dict[str, Any]:
    """Returns a square as COCO says it: its box, and its outline as one polygon."""
    right, bottom = left + edge, top + edge
    outline = [[left, top, right, top, right, bottom, left, bottom]]
    box = {"bbox": [left, top, edge, edge], "segmentation": outline, "area": edge * edge, "iscrowd": 0}
    return {"id": image_id * 1000 + left * 30 + top, "image_id": image_id, "category_id": category_id, **box}


def write_coco(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def write_squares(path: Path, squares: list[tuple[int, int, str]], edge: int = 10, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Writes a dark picture with bright squares."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", size, (20, 20, 30))
    for left, top, colour in squares:
        ImageDraw.Draw(picture).rectangle((left, top, left + edge - 1, top + edge - 1), fill={"red": (220, 30, 30), "green": (30, 220, 30)}[colour])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def _corner(source: random.Random) -> tuple[int, int]:
    return source.randrange(WIDTH - 10), source.randrange(HEIGHT - 10)
