from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path
from unittest import mock

import pytest

from launch.config.errors import ConfigError, PreflightError, StateError
from launch.config.new_run import create_attempt, create_run_dir, new_run_id, writing
from launch.config.run_dir import RunDir, find_run, read_json, update_status, write_atomic


def made(root: Path, run_id: str) -> RunDir:
    run = RunDir(root / "x" / run_id)
    run.path.mkdir(parents=True)
    run.resolved.write_text("")
    return run


def test_paths_are_the_public_contract(tmp_path):
    run = RunDir(tmp_path)
    attempt = run.attempt(3)
    assert [
        path.relative_to(tmp_path).as_posix()
        for path in (run.status, run.metrics, attempt.plan, attempt.rank_log(7), attempt.rank_failure(12), attempt.stop_file)
    ] == [
        "status.json",
        "metrics.jsonl",
        "attempts/0003/plan.json",
        "attempts/0003/rank_00007.log",
        "attempts/0003/failures/rank_00012.json",
        "attempts/0003/stop",
    ]


def test_run_ids_sort_by_time_and_differ():
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", new_run_id())
    assert new_run_id() != new_run_id()


def test_run_directory_with_something_in_it_is_refused_and_untouched(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        create_run_dir(tmp_path, "x", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_run_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        create_run_dir(tmp_path / "file", "x")


def test_attempts_are_numbered_also_when_made_at_once(tmp_path):
    run = create_run_dir(tmp_path, "x")
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(create_attempt(run).number)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert run.last_attempt().number == 8


def test_run_is_found_by_directory_id_beginning_and_latest(tmp_path):
    old, new = made(tmp_path, "20260101-000000-aaaaaa"), made(tmp_path, "20260102-000000-bbbbbb")
    assert find_run(str(old.path), tmp_path) == old
    assert find_run("20260101-000000-aaaaaa", tmp_path) == old
    assert find_run("20260102", tmp_path) == new
    assert find_run("latest", tmp_path) == new


def test_a_run_that_a_person_named_is_found_and_the_latest_if_it_began_last(tmp_path):
    made(tmp_path, "20260101-000000-aaaaaa")
    named = RunDir(tmp_path / "autoencoder")
    named.path.mkdir()
    named.status.write_text("{}")
    assert find_run("autoencoder", tmp_path) == named
    assert find_run("latest", tmp_path) == named
    later = made(tmp_path, "29990101-000000-aaaaaa")
    assert find_run("latest", tmp_path) == later


def test_ambiguous_and_unknown_names_are_refused(tmp_path):
    made(tmp_path, "20260101-000000-aaaaaa")
    made(tmp_path, "20260102-000000-bbbbbb")
    with pytest.raises(StateError) as caught:
        find_run("2026", tmp_path)
    assert str(caught.value).splitlines()[:2] == [
        "2 runs are called '2026'",
        f"    allowed: {tmp_path}/x/20260101-000000-aaaaaa, {tmp_path}/x/20260102-000000-bbbbbb",
    ]
    with pytest.raises(StateError, match="there is no run 'x'"):
        find_run("x", tmp_path)


def test_many_runs_of_one_name_are_counted_and_the_newest_named(tmp_path):
    for day in range(1, 12):
        made(tmp_path, f"202601{day:02d}-000000-aaaaaa")
    with pytest.raises(StateError, match=r"11 runs are called '2026'\n    allowed: 3 older, .*/20260104-000000-aaaaaa, .*/20260111-000000-aaaaaa\n"):
        find_run("2026", tmp_path)


def test_without_any_run_the_way_to_the_first_one_is_shown(tmp_path):
    with pytest.raises(StateError, match=r"or start one: fullrank run quickstart$"):
        find_run("latest", tmp_path)


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "one")
    write_atomic(path, "two")
    assert path.read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_torn_or_missing_json_is_none(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "b.json") is None


def test_status_keeps_what_is_not_changed_and_beats(tmp_path):
    run = RunDir(tmp_path)
    update_status(run, state="running", step=1)
    status = update_status(run, step=2)
    assert (status["state"], status["step"]) == ("running", 2)
    assert read_json(run.status) == status
    assert status["heartbeat"] > 0


def test_write_that_fails_leaves_the_old_text_and_nothing_beside_it(tmp_path, full_disk):
    path = tmp_path / "status.json"
    path.write_text("old")
    with full_disk(), pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("status.json", "old")]


def test_full_disk_is_one_clear_problem(tmp_path, full_disk):
    with full_disk(), pytest.raises(PreflightError, match="the run directory cannot be written: No space left on device"), writing(RunDir(tmp_path)):
        write_atomic(tmp_path / "plan.json", "{}")


@pytest.fixture
def full_disk():
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: mock.patch("os.fsync", fail)


def test_how_an_attempt_ended_stays_with_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.attempt(1).path.mkdir(parents=True)
    update_status(run, state="running", attempt=1, step=3)
    assert not run.attempt(1).ended.exists()
    update_status(run, state="stopped", cause="preempted", ended=5.0)
    run.attempt(2).path.mkdir()
    update_status(run, state="running", attempt=2, cause=None, ended=None)
    kept = read_json(run.attempt(1).ended) or {}
    assert (kept["state"], kept["cause"], kept["step"], kept["ended"]) == ("stopped", "preempted", 3, 5.0)
    assert not run.attempt(2).ended.exists()
