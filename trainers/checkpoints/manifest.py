"""What makes a checkpoint folder whole: the manifest it is published with, and read by. Without torch: scripts publish by it too."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.config.errors import Problem, StateError
from launch.config.run_dir import RunDir, read_json

FORMAT = 1
MANIFEST = "manifest.json"
_REPLACED = ".replaced"


def publish(temporary: Path, path: Path, facts: Mapping[str, Any]) -> None:
    """Flushes a folder to disk, lists its files in a manifest, and renames it into place."""
    files = {}
    for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
        files[str(file.relative_to(temporary))] = {"size": file.stat().st_size, "sha256": _digest(file)}
        _flush(file)
    manifest = {"format": FORMAT, **facts, "time": time.time(), "files": files}
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    _flush(temporary / MANIFEST)
    _flush(temporary)
    replaced = _replaced_by(path)
    if path.exists():  # a script may publish a step twice: the old one goes when the new one is there
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
    temporary.rename(path)
    _flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def sorted_checkpoints(run: RunDir) -> list[Path]:
    """Returns the complete checkpoints of a run, oldest first."""
    found = [path for path in run.checkpoints.glob("checkpoint-*") if is_complete(path) and path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """Returns the step of a checkpoint, which is in its name."""
    return int(path.name.rpartition("-")[2])


def find_newest(run: RunDir) -> Path | None:
    """Returns the newest checkpoint whose manifest holds; damaged ones are set aside with a warning. One process only.

    Raises:
        StateError: it was written by a newer fullrank.
    """
    for replaced in run.checkpoints.glob(f".*{_REPLACED}"):  # a kill came between the two renames of publish
        path = replaced.with_name(replaced.name[1 : -len(_REPLACED)])
        if not path.exists():
            replaced.rename(path)
    for path in sorted_checkpoints(run)[::-1]:
        if is_usable(path):
            return path
    return None


def is_complete(path: Path) -> bool:
    """Returns whether a folder was published; its files may have suffered since."""
    return (path / MANIFEST).is_file()


def is_usable(path: Path) -> bool:
    """Returns whether a checkpoint is whole; renames one that is not, so that it neither counts nor stands in the way of a new one.

    Raises:
        StateError: it was written by a newer fullrank.
    """
    found = (read_json(path / MANIFEST) or {}).get("format")
    if isinstance(found, int) and found > FORMAT:
        what = f"the checkpoint has format {found}; this fullrank knows formats up to {FORMAT}"
        raise StateError(Problem(what, where=str(path), fix="the fullrank that wrote it, or a newer one"))
    damage = find_damage(path)
    if damage is None:
        return True
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    print(f"warning: {path.name} is passed over and renamed to {aside.name}: {damage}", file=sys.stderr)
    return False


def find_damage(path: Path) -> str | None:
    """Returns what is wrong with a checkpoint, or None if every file is as its manifest says."""
    manifest = read_json(path / MANIFEST)
    if manifest is None or not isinstance(manifest.get("files"), dict):
        return "it has no readable manifest.json"
    if manifest.get("format") not in range(1, FORMAT + 1):
        return f"its manifest.json has no known format: {manifest.get('format')!r}"
    for name, facts in manifest["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != facts["size"]:
            return f"{name} has {file.stat().st_size} bytes instead of {facts['size']}"
        if _digest(file) != facts["sha256"]:
            return f"{name} has changed since it was written"
    return None


def prune(run: RunDir, keep: int, best_step: int | None = None) -> None:
    """Removes all checkpoints but the newest `keep` and the one of `best_step`."""
    everything = sorted_checkpoints(run)
    for path in everything[:-keep]:
        if path.name != f"checkpoint-{best_step}":
            (path / MANIFEST).unlink(missing_ok=True)  # from here on it is incomplete, whatever happens
            shutil.rmtree(path, ignore_errors=True)


def _replaced_by(path: Path) -> Path:
    """Returns where a checkpoint waits while another of its step takes its name."""
    return path.with_name(f".{path.name}{_REPLACED}")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
