from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from launch.config.run_dir import RunDir
from trainers.crash import CrashReport
from trainers.heartbeat import Heartbeat


@pytest.fixture(autouse=True)
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", fail)


def test_heartbeat_goes_on_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("trainers.heartbeat.INTERVAL_S", 0.0)
    heartbeat = Heartbeat(RunDir(tmp_path), CrashReport(0, None), is_main=True)
    heartbeat.beat(1)
    heartbeat.beat(2)
    assert capsys.readouterr().err == f"warning: {tmp_path}/status.json cannot be written: No space left on device; training goes on\n"


def test_crash_report_still_answers_with_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CrashReport(0, RunDir(tmp_path).attempt(1)).write(ValueError("the cause")) == 1
    assert "ValueError: the cause" in capsys.readouterr().err
