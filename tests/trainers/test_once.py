from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from trainers.once import make_once


def fill(folder: Path) -> None:
    (folder / "file").write_text("whole", encoding="utf-8")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    make_once(tmp_path / "a/b", Path.is_dir, fill)
    assert make_once(tmp_path / "a/b", Path.is_dir, lambda _: pytest.fail("made twice")) == tmp_path / "a/b"
    assert (tmp_path / "a/b/file").read_text(encoding="utf-8") == "whole"


def test_a_maker_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        make_once(tmp_path / "a", Path.is_dir, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]
    make_once(tmp_path / "a", Path.is_dir, fill)


def test_a_full_disk_names_the_way_out(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "file"))

    with pytest.raises(ConfigError, match=r"cannot be written: No space left on device\n    try: FULLRANK_CACHE=DIR"):
        make_once(tmp_path / "a", Path.is_dir, fail)


def test_a_place_that_cannot_be_written_is_one_clear_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.*: cannot be written: File exists"):
        make_once(tmp_path / "file/a", Path.is_dir, fill)


def test_a_killed_maker_does_not_block_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from trainers.once import make_once\n"
        f"make_once(Path({str(tmp_path / 'a')!r}), Path.is_dir, lambda folder: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not (tmp_path / "a").exists()
    make_once(tmp_path / "a", Path.is_dir, fill)
    assert (tmp_path / "a/file").is_file()
