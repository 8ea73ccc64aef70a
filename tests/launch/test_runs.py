from __future__ import annotations

import calendar
import os
import socket
import time

import pytest

from launch.config.errors import StateError
from launch.config.run_dir import RunDir, update_status, write_json
from launch.processes import process_start
from launch.runs import Unreadable, check_resumable, list_runs, read_run


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


BROKEN = [
    ("", "it is empty"),
    ('{"state": ', "it is no whole JSON"),
    ("[1]", "it holds no JSON object"),
    ("{}", "state: None is no state"),
    ('{"state": 5}', "state: 5 is no state"),
    ('{"state": "running", "step": "3"}', "step: '3' is not a whole number"),
    ('{"state": "completed", "heartbeat": []}', r"heartbeat: \[\] is not a number"),
    ('{"state": "running", "agent": 7}', "agent: 7 is not what fullrank writes"),
]


def test_runs_are_listed_by_age_and_broken_ones_are_named(tmp_path):
    for name in ("20260102-000000-a", "20260101-000000-b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        update_status(RunDir(tmp_path / "x" / name), state="completed")
    for number, (text, _) in enumerate(BROKEN):
        broken = tmp_path / "x" / f"20260103-00000{number}-c"
        broken.mkdir()
        (broken / "status.json").write_text(text)
    (tmp_path / "x" / "20260104-000000-d" / "status.json").mkdir(parents=True)
    (tmp_path / "x" / "20260105-000000-e").mkdir()
    (tmp_path / "x" / "20260105-000000-e" / "resolved.yaml").touch()
    (tmp_path / "x" / "no-run").mkdir()
    listed = list_runs(tmp_path)
    assert [state.run.run_id for state in listed[:2]] == ["20260101-000000-b", "20260102-000000-a"]
    assert [state.run.run_id[-1] for state in listed[2:]] == [*"cccccccc", "d", "e"]
    assert all(isinstance(state, Unreadable) for state in listed[2:])


@pytest.mark.parametrize(("text", "why"), BROKEN)
def test_what_is_wrong_with_a_status_is_said(run, text, why):
    run.status.write_text(text)
    with pytest.raises(StateError, match=f"has no readable status\\.json: {why}"):
        read_run(run)


def test_a_run_directly_under_the_run_root_is_listed_by_its_age(tmp_path):
    for path, day in (("named", 2), ("x/20260101-000000-a", 1), ("x/20260103-000000-b", 3)):
        (tmp_path / path / "attempts/0001").mkdir(parents=True)
        update_status(RunDir(tmp_path / path), state="completed")
        (tmp_path / path / "attempts/0001/plan.json").touch()
        moment = calendar.timegm((2026, 1, day, 0, 0, 0))
        os.utime(tmp_path / path / "attempts/0001/plan.json", (moment, moment))
    assert [state.run.run_id for state in list_runs(tmp_path)] == ["20260101-000000-a", "named", "20260103-000000-b"]


@pytest.mark.parametrize("text", ["", '{"state": 5}', None])
def test_a_run_with_a_broken_status_is_resumed_by_how_its_last_attempt_ended(run, text, capsys):
    run.attempt(1).path.mkdir(parents=True)
    if text is not None:
        run.status.write_text(text)
    check_resumable(run)  # killed: it said nothing
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {run.path} has no readable status.json")
    assert told.endswith("; attempt 1 did not say how it ended\n")
    write_json(run.attempt(1).ended, {"state": "completed", "total_steps": 3})
    check_resumable(run, 6)
    with pytest.raises(StateError, match="the run is completed"):
        check_resumable(run)
    with pytest.raises(StateError, match=f"try: cp {run.attempt(1).ended} {run.status} "):
        read_run(run)


def test_a_run_with_a_broken_status_that_beats_elsewhere_is_not_resumed(run):
    run.attempt(1).path.mkdir(parents=True)
    write_json(run.lock, {"host": "elsewhere", "pid": 1})
    with pytest.raises(StateError, match="may be alive on elsewhere"):
        check_resumable(run)


def test_run_that_would_end_before_its_checkpoint_is_refused(run):
    update_status(run, state="stopped")
    (run.checkpoints / "checkpoint-229").mkdir(parents=True)
    write_json(run.checkpoints / "checkpoint-229" / "manifest.json", {"files": {}})
    with pytest.raises(StateError, match=r"train\.duration: the run is at step 229 and would end at step 200, which it has passed"):
        check_resumable(run, 200)
    check_resumable(run, 229)
    check_resumable(run)
