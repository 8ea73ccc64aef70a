from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.config.run_dir import RunDir
from trainers import rehearsal
from trainers.crash import CrashReport
from trainers.rehearsal import RehearsalWatch


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    ended: list[int] = []
    monkeypatch.setattr(rehearsal.os, "_exit", ended.append)
    monkeypatch.setattr(rehearsal, "GRACE_S", 0.0)
    return ended


def watch(folder: Path, is_main: bool) -> tuple[RehearsalWatch, Any]:
    attempt = RunDir(folder).attempt(1)
    attempt.path.mkdir(parents=True)
    return RehearsalWatch(attempt, CrashReport(0, attempt), is_main), attempt


def test_a_rank_that_waits_for_one_without_memory_ends_with_the_number_to_go_on_with(
    tmp_path: Path, codes: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    waiting, attempt = watch(tmp_path, is_main=True)
    with waiting.over(16, 8):
        waiting.tell()  # as another rank does
        while not codes:
            pass
    assert codes == [1]
    assert json.loads(attempt.start.read_text())["micro_batch_size"] == 8
    assert "some ranks ran out of memory with micro-batches of 16" in capfd.readouterr().err


def test_ranks_that_all_come_through_are_left_alone(tmp_path: Path, codes: list[int]) -> None:
    waiting, attempt = watch(tmp_path, is_main=True)
    with waiting.over(16, 8):
        pass
    assert codes == []
    assert not attempt.start.exists()
