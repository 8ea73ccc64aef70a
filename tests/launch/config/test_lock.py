from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.config.errors import StateError
from launch.config.lock import STALE_S, lock_run, silence_s
from launch.config.run_dir import RunDir, update_status


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def held_elsewhere(run: RunDir, silent_s: float, state: str = "running", **holder: object) -> None:
    """Leaves the lock of a process on another host, on a file system that does not show its flock here."""
    update_status(run, state=state)
    run.lock.write_text(json.dumps({"host": "node1", "pid": 7, "job_id": None} | holder))
    for path in (run.lock, run.status):
        os.utime(path, (time.time() - silent_s,) * 2)


def test_second_process_in_a_run_is_told_who_is_there(run: RunDir) -> None:
    with lock_run(run), pytest.raises(StateError, match=rf"the run is alive: pid {os.getpid()} on .* trains in it\n    try: fullrank status .*"):
        lock_run(run)
    lock_run(run).release()


def test_lock_says_host_pid_and_beats(run: RunDir) -> None:
    with lock_run(run) as lock:
        holder = json.loads(run.lock.read_text())
        assert (holder["host"], holder["pid"]) == (os.uname().nodename, os.getpid())
        os.utime(run.lock, (0, 0))
        assert silence_s(run) > 1e6
        lock.beat()
        assert silence_s(run) < 60


def test_run_that_is_alive_on_another_host_is_refused_and_its_heartbeat_left_alone(run: RunDir) -> None:
    held_elsewhere(run, silent_s=5)
    before = run.lock.stat().st_mtime
    with pytest.raises(StateError, match=r"the run is alive: pid 7 on node1 gave its last sign \d+ s ago"):
        lock_run(run)
    assert run.lock.stat().st_mtime == before
    assert json.loads(run.lock.read_text())["host"] == "node1"


def test_stale_lock_of_another_host_is_taken_over_with_a_sentence(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    held_elsewhere(run, silent_s=STALE_S + 1)
    lock_run(run).release()
    assert "pid 7 on node1 gave no sign for 12" in capsys.readouterr().err
    assert json.loads(run.lock.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("state", ["stopped", "failed", "completed"])
def test_run_that_has_ended_elsewhere_is_free_at_once(run: RunDir, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    held_elsewhere(run, silent_s=0, state=state)
    lock_run(run).release()
    assert capsys.readouterr().err == ""


def test_run_whose_status_still_changes_is_not_taken_over(run: RunDir) -> None:
    held_elsewhere(run, silent_s=STALE_S + 1)
    update_status(run, step=3)
    with pytest.raises(StateError, match="the run is alive"):
        lock_run(run)


def test_requeued_job_is_its_own_successor(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    held_elsewhere(run, silent_s=5, job_id="41")
    lock_run(run).release()
    held_elsewhere(run, silent_s=5, job_id="40")
    with pytest.raises(StateError, match="the run is alive"):
        lock_run(run)


def test_heartbeat_does_not_depend_on_the_clock_of_this_host(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    held_elsewhere(run, silent_s=5)
    monkeypatch.setattr("time.time", lambda: 4e9)
    with pytest.raises(StateError, match="the run is alive"):
        lock_run(run)


def test_lock_is_not_inherited_by_what_the_process_starts_and_ends_with_it(run: RunDir) -> None:
    code = "import subprocess, sys; from pathlib import Path; from launch.config.lock import lock_run; from launch.config.run_dir import RunDir\n"
    code += "lock_run(RunDir(Path(sys.argv[1])))\n"
    code += "print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
    pid = int(subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True).stdout)
    lock_run(run).release()
    os.kill(pid, 9)


def test_data_worker_that_outlives_its_killed_rank_does_not_hold_the_lock(run: RunDir) -> None:
    code = "import os, sys, time; from pathlib import Path; from launch.config.lock import lock_run; from launch.config.run_dir import RunDir\n"
    code += "lock_run(RunDir(Path(sys.argv[1])))\n"
    code += "pid = os.fork()\n"
    code += "if pid: print(pid, flush=True); os.kill(os.getpid(), 9)\n"
    code += "else: sys.stdout.close(); os.close(1); time.sleep(60)"
    pid = int(subprocess.run([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True).stdout)
    try:
        lock_run(run).release()
    finally:
        os.kill(pid, 9)
