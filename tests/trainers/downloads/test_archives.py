from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from tests.package_index import make_tar, make_zip
from trainers.downloads.archives import enter, unpack


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")])
def test_every_kind_of_tar_is_unpacked(name: str, mode: str, tmp_path: Path) -> None:
    unpack(written(tmp_path, name, make_tar({"folder/b.txt": b"text"}, mode)), tmp_path / "out")
    assert (tmp_path / "out/folder/b.txt").read_bytes() == b"text"


def test_a_wheel_is_unpacked(tmp_path: Path) -> None:
    unpack(written(tmp_path, "a-1-py3-none-any.whl", make_zip({"a/weights.bin": b"\x00\x01"})), tmp_path / "out")
    assert (tmp_path / "out/a/weights.bin").read_bytes() == b"\x00\x01"


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "a\\..\\out.txt"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_name_that_leads_out_is_refused(make: Callable[[dict[str, bytes]], bytes], name: str, tmp_path: Path) -> None:
    archive = written(tmp_path, "a.archive", make({name: b"x"}))
    (tmp_path / "deep").mkdir()
    with pytest.raises(ConfigError, match="would be written outside"):
        unpack(archive, tmp_path / "deep/out")
    assert not (tmp_path / "deep/out.txt").exists()
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(ConfigError, match="'link' is a link or a device"):
        unpack(written(tmp_path, "a.tar.gz", make_tar({"link": info})), tmp_path / "out")


def test_a_symlink_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(ConfigError, match="'link' is a link or a device"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_archive_that_grows_beyond_the_limit_is_refused(make: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    archive = written(tmp_path, "bomb", make({"zeros": bytes(100_000)}))
    with pytest.raises(ConfigError, match="unpacks to more than 50,000 bytes"):
        unpack(archive, tmp_path / "out", size_limit=50_000)
    assert (tmp_path / "out/zeros").stat().st_size <= 50_000


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", make_tar({"a": b"x" * 5000})[:-60], make_zip({"a": b"x" * 5000})[:-30]],
    ids=["empty", "text", "cut tar", "cut zip"],  # the bytes hold the time
)
def test_what_is_no_whole_archive_is_said_so(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a whole archive"):
        unpack(written(tmp_path, "a.tar.gz", content), tmp_path / "out")


def test_an_archive_inside_is_entered_by_path_once(tmp_path: Path) -> None:
    inner = make_tar({"deep/b.txt": b"text"})
    unpack(written(tmp_path, "a.zip", make_zip({"data/in.tar.gz": inner})), tmp_path / "files")
    found = enter(tmp_path / "files", "data/in.tar.gz/deep/b.txt")
    assert found.read_bytes() == b"text"
    assert enter(tmp_path / "files", "data/in.tar.gz").read_bytes() == inner
    found.write_bytes(b"still here")
    assert enter(tmp_path / "files", "data/in.tar.gz/deep/b.txt").read_bytes() == b"still here"


def test_a_path_that_is_not_inside_names_what_is(tmp_path: Path) -> None:
    unpack(written(tmp_path, "a.zip", make_zip({"data/in.tar.gz": make_tar({"b.txt": b"", "c.txt": b""})})), tmp_path / "files")
    with pytest.raises(ConfigError, match=r"the archive has no 'data/in.tar.gz/x.txt'\n    allowed: b.txt, c.txt"):
        enter(tmp_path / "files", "data/in.tar.gz/x.txt")
