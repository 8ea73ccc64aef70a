from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.stop_file import read_stop_file, remove_stop_file


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"preempted\n", "preempted"), (b"time_limit", "time_limit"), (b"", "user"), (b"because", "user"), (b"\xff\xfe\x00", "user")],
)
def test_its_being_there_is_the_request_and_what_names_no_cause_is_a_persons(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "stop"
    assert read_stop_file(path) is None
    path.write_bytes(content)
    assert read_stop_file(path) == cause
    remove_stop_file(path)
    assert not path.exists()


def test_folder_of_its_name_is_one_too(tmp_path: Path) -> None:
    path = tmp_path / "stop"
    path.mkdir()
    assert read_stop_file(path) == "user"
    remove_stop_file(path)
    remove_stop_file(path)  # it was removed by somebody else
    assert not path.exists()
