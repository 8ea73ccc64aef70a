"""What a job script asks at its begin and its end: which attempt this is, and what is to become of the job."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.config.errors import StateError
from launch.config.lock import lock_run
from launch.config.new_run import create_attempt
from launch.config.run_dir import RunDir, read_json, update_status, write_json
from launch.scheduler import job, lost_nodes

PLAN = {"nodes": 1, "processes_per_node": 1, "world_size": 1, "device": "cpu", "port": 23456, "environment": {}, "command": ["python"]}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that was submitted as job 12."""
    found = RunDir(tmp_path)
    write_json(create_attempt(found).plan, PLAN)
    update_status(found, state="pending", attempt=1, job_id="12", requeues=True)
    return found


@pytest.fixture
def in_job(monkeypatch) -> Callable[[str], None]:
    """Returns a function that makes this process a job's script."""
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)

    def set_id(job_id: str) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", job_id)

    return set_id


def report(run: RunDir, attempt: int = 1, **says: Any) -> None:
    """Writes what the agent of node 0 says at its end."""
    folder = run.attempt(attempt).nodes
    folder.mkdir(exist_ok=True)
    write_json(run.attempt(attempt).node_report(0), {"node": 0, "host": "node1", "codes": [0], "ended": 1.0, "failure": None} | says)


def test_the_first_start_is_the_attempt_that_submit_made(run, in_job, capsys):
    in_job("12")
    assert job.begin(run, sys.executable) == 0
    assert capsys.readouterr().out == f"23456 {run.attempt(1).path}\n"
    facts = read_json(run.attempt(1).job)
    assert facts is not None
    assert (facts["slurm_job_id"], facts["first_node"]["host"]) == ("12", socket.gethostname())
    assert read_json(run.status)["state"] == "running"


def test_of_another_python_nothing_is_known_before_it_runs(run, in_job):
    in_job("12")
    job.begin(run, "/in/the/container/python")
    assert read_json(run.attempt(1).job)["first_node"] is None


@pytest.mark.parametrize("state", ["completed", "cancelled", "failed"])
def test_a_run_that_is_over_is_not_started(state, run, in_job, capsys):
    update_status(run, state=state)
    in_job("12")
    assert job.begin(run, sys.executable) == 0
    said = capsys.readouterr()
    assert (said.out, said.err.startswith("not started: ")) == ("", True)


def test_the_next_start_is_an_attempt_like_the_last(run, in_job, capsys):
    in_job("12")
    job.begin(run, sys.executable)
    update_status(run, state="requeued")
    capsys.readouterr()
    job.begin(run, sys.executable)
    assert capsys.readouterr().out == f"23456 {run.attempt(2).path}\n"
    assert read_json(run.attempt(2).plan) == PLAN | {"attempt": 2}


def test_a_job_given_up_for_lost_lets_go_of_its_run(run, in_job, capsys, monkeypatch):
    """Its node is out of reach, not dead: it finds its lock gone, and the job that took over waits until it must have looked."""
    in_job("12")
    job.begin(run, sys.executable)
    slept: list[float] = []
    monkeypatch.setattr(job.time, "sleep", slept.append)
    with lock_run(run) as lost:
        lost.beat_or_refuse()
        holder = json.loads(run.lock.read_text())
        run.lock.write_text(json.dumps(holder | {"host": "node9"}))
        job.begin(run, sys.executable)
        with pytest.raises(StateError, match="another job has taken the run over"):
            lost.beat_or_refuse()
    assert slept == [15.0]
    assert "job 12 may still be at work on node9" in capsys.readouterr().err


def test_an_attempt_that_was_taken_over_says_nothing_at_its_end(run, in_job, capsys):
    in_job("12")
    create_attempt(run)
    update_status(run, state="running", attempt=2)
    before = run.status.read_bytes()
    assert job.end(run.attempt(1), 1) == 0
    assert run.status.read_bytes() == before
    assert capsys.readouterr().out == ""


def test_a_preempted_job_is_put_back(run, in_job, capsys):
    in_job("12")
    report(run, codes=[75])
    update_status(run, state="stopped", cause="preempted")
    assert job.end(run.attempt(1), 0) == 0
    assert capsys.readouterr().out == "requeue\n"
    assert read_json(run.status)["state"] == "requeued"


@pytest.mark.parametrize(
    ("job_id", "status", "verdict", "state"),
    [
        ("12", {"state": "stopped", "cause": "preempted"}, "", "requeued"),
        ("14", {"state": "stopped", "cause": "preempted"}, "", "stopped"),
        ("12", {"state": "completed"}, "cancel 13 14\n", "completed"),
        ("13", {"state": "stopped", "cause": "user"}, "cancel 14\n", "stopped"),
        ("14", {"state": "completed"}, "", "completed"),
    ],
    ids=["stopped", "the last, stopped", "completed", "stopped by a person", "the last, completed"],
)
def test_a_link_of_a_chain(job_id, status, verdict, state, run, in_job, capsys):
    in_job(job_id)
    run.job_ids.write_text("12\n13\n14\n")
    report(run)
    update_status(run, requeues=False, **status)
    job.end(run.attempt(1), 0)
    assert capsys.readouterr().out == verdict
    assert read_json(run.status)["state"] == state


def test_a_python_is_the_same_behind_a_wrapper(tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    assert job.is_same_python(sys.executable)
    assert job.is_same_python(str(wrapper))
    assert not job.is_same_python(os.devnull)


@pytest.mark.parametrize(("down", "words"), [("node2\nnode2\n", "node2 was lost"), ("", "a node of node[1-2] was lost, or the job was killed there")])
def test_the_lost_node_is_named_by_the_next_start(down, words, run, in_job, capsys, monkeypatch):
    monkeypatch.setattr(lost_nodes, "ask", lambda *argv: down)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    in_job("12")
    job.begin(run, sys.executable)
    job.begin(run, sys.executable)
    told = f"attempt 1 ended without a word: {words}; training goes on from the last checkpoint"
    assert capsys.readouterr().err == f"{told}\n"
    assert read_json(run.status)["message"] == told


def test_a_node_lost_in_the_last_attempt_stays_named_in_the_next(run, in_job, capsys):
    in_job("12")
    job.begin(run, sys.executable)
    message = "node2 was lost: training goes on from the last checkpoint"
    update_status(run, state="requeued", cause="node_failed", message=message)
    capsys.readouterr()
    job.begin(run, sys.executable)
    assert capsys.readouterr().err == f"{message}\n"
    assert read_json(run.status)["message"] == message


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("stopped", 1), ("failed", 1)])
def test_a_stage_begins_only_when_the_one_before_is_completed(state, code, run, in_job, capsys, tmp_path):
    before = RunDir(tmp_path / "before")
    before.path.mkdir()
    update_status(before, state=state)
    update_status(run, begins_after=str(before.path))
    in_job("12")
    assert job.begin(run, sys.executable) == code
    status = read_json(run.status)
    assert status is not None
    if state == "completed":
        assert status["state"] == "running"
    else:
        assert (status["state"], status["message"]) == ("cancelled", f"the stage before it is {state}: {before.path}")
