"""Reads CIFAR-10 and CIFAR-100 as their authors publish them: the binary layout, and the pickled one where its checksums are theirs."""

from __future__ import annotations

import codecs
import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from launch.config.errors import ConfigError, Problem
from launch.config.picture_files import CIFAR_LAYOUTS, CIFAR_PIXELS, CifarLayout, find_cifar
from launch.config.tasks import Pictures
from trainers.reading.rows import Split


def read_cifar(root: Path, wanted: Mapping[str, str], options: Pictures) -> dict[str, Split]:
    """Returns the splits; pictures are uint8 [32, 32, 3] each.

    Raises:
        ConfigError: no such layout, a file that is missing or cut off, or a pickle that is not the published one.
    """
    found = find_cifar(root)
    if found is None:
        known = ", ".join(layout.folder for layout in CIFAR_LAYOUTS)
        raise ConfigError(Problem(f"{root} holds none of CIFAR's layouts", key="data.source", allowed=known))
    folder, layout = found
    names = _class_names(folder, layout)
    splits = {}
    for split, name in wanted.items():
        if name not in layout.files:
            fix = f"data.splits.{split}=null, and data.{split}_fraction=0.1 to cut one from train" if split != "train" else None
            raise ConfigError(Problem(f"{layout.folder} has no split {name!r}", key=f"data.splits.{split}", allowed="train, test, or null", fix=fix))
        parts = [_read_file(folder / file, layout) for file in layout.files[name]]
        images = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = [label for part in parts for label in part[1]]
        wrong = next((label for label in labels if not 0 <= label < len(names)), None)
        if wrong is not None:
            raise ConfigError(Problem(f"the label {wrong} is no class of {len(names)}", str(folder), "data.source", fix="fetch it again"))
        columns: dict[str, Any] = {options.image: images, options.label: labels}
        splits[split] = Split(columns, f"{folder}, split {name}", range(len(labels)), is_text_file=False, class_names={options.label: names})
    return splits


def _read_file(path: Path, layout: CifarLayout) -> tuple[Any, list[int]]:
    """Returns pixels, uint8 [N, 3072], and classes."""
    if not path.is_file():
        raise ConfigError(Problem(f"there is no {path}", key="data.source", fix="unpack the whole archive"))
    if layout.num_labels is None:
        content = _read_pickle(path)
        return np.asarray(content["data"], dtype=np.uint8).reshape(-1, CIFAR_PIXELS), list(content.get("labels") or content["fine_labels"])
    record = layout.num_labels + CIFAR_PIXELS
    values = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not len(values) or len(values) % record:
        raise ConfigError(Problem(f"{len(values)} bytes are no whole number of records of {record}", str(path), "data.source", fix="fetch it again"))
    rows = values.reshape(-1, record)
    return rows[:, layout.num_labels :], rows[:, layout.num_labels - 1].tolist()


def _class_names(folder: Path, layout: CifarLayout) -> list[str]:
    path = folder / layout.names
    if layout.num_labels is not None:
        return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    content = _read_pickle(path)
    return list(content.get("label_names") or content["fine_label_names"])


def published_checksums() -> dict[str, str]:
    """Returns file -> MD5 of the published pickles, from torchvision's own list."""
    from torchvision.datasets import CIFAR10, CIFAR100

    known: dict[str, str] = {}
    for kind in (CIFAR10, CIFAR100):
        known |= dict([*kind.train_list, *kind.test_list]) | {kind.meta["filename"]: kind.meta["md5"]}
    return known


def _read_pickle(path: Path) -> dict[str, Any]:
    """Returns the content of a published pickle. A pickle can run any code, so no other is read, and of this one only plain arrays."""
    content = path.read_bytes()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if digest != published_checksums().get(path.name):
        what = "is a pickle, which can run any code, and not the one that was published (its MD5 is another)"
        raise ConfigError(Problem(what, str(path), "data.source", fix="the published archive, or its binary version: cifar-10-binary.tar.gz"))
    loaded: dict[str, Any] = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    return loaded


class _ArraysOnly(pickle.Unpickler):
    """Finds numpy's arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        from numpy._core.multiarray import _reconstruct

        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return allowed[module, name]
