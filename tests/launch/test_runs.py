from __future__ import annotations

import os
import socket
import time

import pytest

from launch.config.errors import StateError
from launch.config.run_dir import RunDir, update_status, write_json
from launch.processes import process_start
from launch.runs import check_resumable, list_runs, read_run


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "tiny" / "20260101-000000-abcdef")
    run.path.mkdir(parents=True)
    return run


def test_run_of_a_living_process_is_running(run):
    update_status(run, state="running", host=socket.gethostname(), agent={"pid": os.getpid(), "start": process_start(os.getpid())})
    assert read_run(run).state == "running"


@pytest.mark.parametrize("agent", [{"pid": 2**22 + 1, "start": "1"}, {"pid": os.getpid(), "start": "not this process"}])
def test_run_whose_process_is_gone_is_lost(run, agent):
    update_status(run, state="running", host=socket.gethostname(), agent=agent)
    assert read_run(run).state == "lost"


def test_attempt_started_without_fullrank_is_not_judged_by_the_agent_of_an_earlier_one(run):
    agent = {"pid": 2**22 + 1, "start": "1", "attempt": 1}
    update_status(run, state="running", host=socket.gethostname(), attempt=2, pid=os.getpid(), agent=agent)
    assert read_run(run).state == "running"


@pytest.mark.parametrize(("age_s", "state"), [(60, "running"), (6000, "lost")])
def test_run_on_another_host_is_lost_after_a_long_silence(run, age_s, state):
    write_json(run.status, {"state": "running", "host": "elsewhere"})
    os.utime(run.status, (time.time() - age_s,) * 2)
    assert read_run(run).state == state


def test_ended_run_stays_what_it_is(run):
    update_status(run, state="completed", host=socket.gethostname(), pid=2**22 + 1)
    assert read_run(run).state == "completed"


def test_folder_without_status_is_refused(run):
    with pytest.raises(StateError, match=r"no readable status\.json"):
        read_run(run)


def test_runs_are_listed_by_age_and_broken_ones_passed_over(tmp_path):
    for name in ("20260102-000000-a", "20260101-000000-b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        update_status(RunDir(tmp_path / "x" / name), state="completed")
    (tmp_path / "x" / "torn").mkdir()
    (tmp_path / "x" / "torn" / "status.json").write_text('{"state": ')
    assert [state.run.run_id for state in list_runs(tmp_path)] == ["20260101-000000-b", "20260102-000000-a"]


def test_run_that_would_end_before_its_checkpoint_is_refused(run):
    update_status(run, state="stopped")
    (run.checkpoints / "checkpoint-229").mkdir(parents=True)
    write_json(run.checkpoints / "checkpoint-229" / "manifest.json", {"files": {}})
    with pytest.raises(StateError, match=r"train\.duration: the run is at step 229 and would end at step 200, which it has passed"):
        check_resumable(run, 200)
    check_resumable(run, 229)
    check_resumable(run)
