"""What a `source` means: a hub name, a path, a run, a torchvision model, a file of the package index; pure parsing and cache places."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launch.config.errors import ConfigError, Problem
from launch.config.run_dir import RunDir, find_run, read_json

if TYPE_CHECKING:
    from launch.config.experiment import Model

_PYPI = re.compile(
    r"pypi://(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)(?:/(?P<path>[^#]*))?(?:#(?P<fragment>.*))?"
)
_TORCHVISION = re.compile(r"torchvision://(?P<name>[A-Za-z0-9_]+)\?weights=(?P<weights>[A-Za-z0-9_.]+)")
_HUB = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?)(?::(?P<configuration>[A-Za-z0-9][A-Za-z0-9._-]*))?")


@dataclass(frozen=True)
class PackageFile:
    """pypi://NAME==VERSION/path/inside#sha256=...: one archive of the package index, and a place inside it.

    Args:
        path: inside the archive; an archive on the way is entered (`a.tar.gz/b.txt`). Empty: the archive's root.
        sha256: of the archive that is downloaded.
    """

    name: str
    version: str
    path: str
    sha256: str


@dataclass(frozen=True)
class LocalPath:
    path: Path


@dataclass(frozen=True)
class HubName:
    """NAME or OWNER/NAME on the hub; a data set may have one of its configurations after a colon (`nyu-mll/glue:sst2`)."""

    name: str
    configuration: str | None = None


@dataclass(frozen=True)
class TorchvisionModel:
    """torchvision://NAME?weights=W: an architecture of torchvision.

    Args:
        weights: name of published weights (DEFAULT, IMAGENET1K_V2, ...); None: random.
    """

    name: str
    weights: str | None


@dataclass(frozen=True)
class OwnClass:
    """MODULE:NAME: a class that builds the model; nothing is fetched for it."""

    module: str
    name: str


Source = PackageFile | LocalPath | HubName | TorchvisionModel | OwnClass


def parse_source(text: str, key: str = "source") -> Source:
    """Returns what a source names. A path starts with `/`, `./`, `../` or `~`, or exists; `runs/<run>` is the path of that run's model.

    Raises:
        ConfigError: a pypi:// address that is incomplete or climbs out of its archive; or not a possible name.
    """
    if text.startswith("pypi://"):
        return _parse_package_file(text, key)
    if text.startswith("torchvision://"):
        return _parse_torchvision(text, key)
    path = Path(text).expanduser()
    if text.startswith(("/", "./", "../", "~", "runs/")) or text in (".", "..") or path.exists():
        return LocalPath(path.absolute())
    hub = _HUB.fullmatch(text)
    if hub is not None:
        return HubName(hub["name"], hub["configuration"])
    raise ConfigError(
        Problem(
            f"{text!r} is not a hub name, and no such path is there", key=key, allowed="OWNER/NAME, a path, or pypi://NAME==VERSION/path#sha256=..."
        )
    )


def parse_model(model: Model) -> Source:
    """Returns where a model starts from: its class, or what its source means.

    Raises:
        ConfigError: as parse_source.
    """
    if model.source is not None:
        return parse_source(model.source, "model.source")
    module, _, name = (model.class_ or "").partition(":")
    return OwnClass(module, name)


def find_source(text: str, key: str) -> Source:
    """Returns what a source names, with a local path checked to be there and a run replaced by its model.

    Raises:
        ConfigError: as parse_source, or no such path, or a run that has no finished model.
    """
    source = parse_source(text, key)
    if not isinstance(source, LocalPath):
        return source
    path = source.path
    if not path.exists() and text.startswith("runs/"):
        path = find_run(text.removeprefix("runs/"), Path("runs")).path
    if not path.exists():
        raise ConfigError(Problem(f"there is no {path}", key=key, fix="check the path; a hub name is OWNER/NAME, without a dot or slash in front"))
    run = RunDir(path)
    if not run.resolved.is_file():
        return LocalPath(path)
    if not run.model.is_dir():
        is_gone = (read_json(run.status) or {}).get("state") == "completed"
        what, fix = ("is completed, and its model is gone", "bring it back") if is_gone else ("has no finished model", f"fullrank resume {path}")
        raise ConfigError(Problem(f"the run {path} {what}", key=key, fix=f"{fix}, or a checkpoint of it: {run.checkpoints}/..."))
    return LocalPath(run.model)


def cache_root() -> Path:
    """Returns the folder for what is fetched or prepared once: $FULLRANK_CACHE, or fullrank under the user's cache folder."""
    base = os.environ.get("FULLRANK_CACHE")
    return Path(base).expanduser().absolute() if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "fullrank"


def _parse_torchvision(text: str, key: str) -> TorchvisionModel:
    form = "torchvision://resnet50?weights=DEFAULT (or the name of other weights, or weights=null for random ones)"
    match = _TORCHVISION.fullmatch(text)
    if key != "model.source":
        raise ConfigError(Problem(f"{text!r} is a model", key=key, allowed="OWNER/NAME, a path, or pypi://NAME==VERSION/path#sha256=..."))
    if match is None:
        raise ConfigError(Problem(f"{text!r} is not complete", key=key, allowed=form))
    return TorchvisionModel(match["name"], None if match["weights"].lower() in ("null", "none") else match["weights"])


def _parse_package_file(text: str, key: str) -> PackageFile:
    form = "pypi://NAME==VERSION/path/inside#sha256=<64 hex digits>"
    match = _PYPI.fullmatch(text)
    if match is None:
        raise ConfigError(Problem(f"{text!r} is not complete", key=key, allowed=form))
    algorithm, _, digest = (match["fragment"] or "").partition("=")
    if algorithm != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise ConfigError(Problem(f"{text!r} has no checksum, so nobody would notice another file under that name", key=key, allowed=form))
    path = (match["path"] or "").strip("/")
    if ".." in path.split("/") or "\\" in path:
        raise ConfigError(Problem(f"{path!r} climbs out of the archive", key=key, allowed="a path inside the archive"))
    return PackageFile(match["name"], match["version"], path, digest.lower())
