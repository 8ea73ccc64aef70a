"""Unpacks zip and tar archives that nobody has vouched for."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from launch.config.errors import ConfigError, Problem
from trainers.once import make_once

ENDINGS = (".whl", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SMALLEST_SIZE_LIMIT = 2**30
LARGEST_EXPANSION = 200
"""Times its own size that an archive may grow (or to SMALLEST_SIZE_LIMIT): text shrinks tenfold, a zip bomb a thousandfold."""
MAX_MEMBERS = 2_000_000

_CHUNK_BYTES = 2**20
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    open: IO[bytes] | None  # None: neither file nor folder


def unpack(archive: Path, target: Path, size_limit: int | None = None) -> None:
    """Unpacks an archive into a new folder; executes nothing, and writes nothing outside of it.

    Raises:
        ConfigError: not a whole archive; a member that is no plain file or folder, or whose name leads out; more bytes than the limit.
    """
    limit = size_limit or max(SMALLEST_SIZE_LIMIT, LARGEST_EXPANSION * archive.stat().st_size)
    target.mkdir()
    num_bytes = num_members = 0
    try:
        for member in _members(archive):
            num_members += 1
            path = target / _safe_name(member.name, archive)
            if num_members > MAX_MEMBERS:
                raise ConfigError(Problem(f"has more than {MAX_MEMBERS} members", where=archive.name))
            if member.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            if member.open is None:
                raise ConfigError(Problem(f"{member.name!r} is a link or a device, which is not unpacked", where=archive.name))
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while chunk := member.open.read(_CHUNK_BYTES):
                    num_bytes += len(chunk)
                    if num_bytes > limit:
                        raise ConfigError(Problem(f"unpacks to more than {limit:,} bytes", where=archive.name))
                    file.write(chunk)
    except _BROKEN as error:
        raise ConfigError(Problem(f"is not a whole archive: {error}", where=archive.name)) from error


def enter(root: Path, path: str) -> Path:
    """Returns the place of `path` under an unpacked archive; an archive on the way is unpacked beside itself, once.

    Raises:
        ConfigError: no such place; names what is there.
    """
    current = root
    for name in PurePosixPath(path).parts:
        if current.is_file() and current.name.endswith(ENDINGS):
            current = _unpacked(current)
        following = current / name
        if not following.exists():
            there = sorted(p.name for p in current.iterdir() if not p.name.endswith((".lock", ".tmp", ".unpacked"))) if current.is_dir() else []
            inside = following.relative_to(root)
            allowed = ", ".join(there[:20]) or f"nothing: {current.name} is a file"
            raise ConfigError(Problem(f"the archive has no {str(inside).replace('.unpacked', '')!r}", allowed=allowed))
        current = following
    return current


def _unpacked(archive: Path) -> Path:
    folder = archive.with_name(f"{archive.name}.unpacked")
    return make_once(folder, Path.is_dir, lambda temporary: _unpack_into(archive, temporary))


def _unpack_into(archive: Path, folder: Path) -> None:
    folder.rmdir()
    unpack(archive, folder)


def _safe_name(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ConfigError(Problem(f"{name!r} would be written outside of the archive's own folder", where=archive.name))
    return path


def _members(archive: Path) -> Iterator[_Member]:
    """Yields what is in a zip or tar; each member's stream is open until the next is asked for."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir() or kind not in (0, stat.S_IFREG):
                    yield _Member(info.filename, info.is_dir(), None)
                    continue
                with file.open(info) as stream:
                    yield _Member(info.filename, False, stream)
        return
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            yield _Member(member.name, member.isdir(), tar.extractfile(member) if member.isreg() else None)
