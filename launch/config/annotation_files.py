"""Annotation files of COCO's format (cocodataset.org/#format-data), for the launcher that looks at them and the trainer that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launch.config.errors import ConfigError, Problem

QUICKLY_READ = 32 << 20
"""Bytes of a file that are read in half a second (measured): a larger one is left to the ranks."""

_LAYOUT = "COCO's format: {images: [{id, file_name}], annotations: [{image_id, category_id, bbox}], categories: [{id, name}]}"
_SHOWN = 80


def read_annotation_file(path: Path, key: str) -> dict[str, Any]:
    """Returns what a file holds: the lists images and annotations, unchecked, and categories, each with an id and a name.

    Args:
        key: of the experiment, which names the file.

    Raises:
        ConfigError: it is not there, is no JSON, or of another format; with its line.
    """
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in path.parent.glob("*.json"))[:20]) if path.parent.is_dir() else ""
        raise ConfigError(Problem(f"there is no {path}", key=key, allowed=f"an annotation file of COCO's format; there: {there or 'none'}"))
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ConfigError(Problem(f"is no JSON: {error.msg}", f"{path}:{error.lineno}", key, fix="fetch or write it again")) from error
    except RecursionError as error:
        raise ConfigError(Problem("is no annotation file: lists stand in lists without end", str(path), key, _LAYOUT)) from error
    except (OSError, ValueError) as error:  # no UTF-8, or a number of more digits than Python reads
        raise ConfigError(Problem(f"cannot be read: {error}", str(path), key)) from error
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ConfigError(Problem(f"has no list {name!r}", str(path), key, _LAYOUT))
    for number, category in enumerate(content["categories"]):
        if not (isinstance(category, dict) and isinstance(category.get("id"), int) and isinstance(category.get("name"), str)):
            what = f"categories[{number}] has no id and name: {repr(category)[:_SHOWN]}"
            raise ConfigError(Problem(what, str(path), key, _LAYOUT))
    return dict(content)
