"""What became of a run's job: by the queue, by accounting, or by neither."""

from __future__ import annotations

from typing import Any

import pytest

from launch.config.errors import Problem
from launch.config.run_dir import RunDir, update_status
from launch.scheduler.commands import SlurmError
from launch.scheduler.jobs import Jobs, Standing, job_ids, judge_gone, judge_queued
from launch.scheduler.printed import Accounted, Queued

RUNNING = {"state": "running", "backend": "slurm", "job_id": "12", "step": 40}


def queued(state: str, reason: str = "None", start: str = "") -> Queued:
    return Queued("12", state, reason, start, "node[1-2]")


def accounted(state: str, code: str = "1:0") -> Accounted:
    return Accounted("12", state, code, "2026-01-01T00:00:00", "node2")


@pytest.mark.parametrize(
    ("said", "job", "standing"),
    [
        (
            "pending",
            queued("PENDING", "Priority", "2026-01-02T03:04:05"),
            ("pending", "jobs of higher priority come first; expected to start 2026-01-02 03:04:05"),
        ),
        ("pending", queued("PENDING", "SomethingNew"), ("pending", "SomethingNew")),
        ("requeued", queued("PENDING", "Reservation"), ("requeued", "waits for its reservation to begin")),
        ("running", queued("PENDING", "Resources"), ("requeued", "waits for nodes to become free")),
        ("pending", queued("RUNNING"), ("running", "starting on node[1-2]")),
        ("running", queued("RUNNING"), ("running", "on node[1-2]")),
        ("stopping", queued("COMPLETING"), ("stopping", "on node[1-2]")),
        ("running", queued("SUSPENDED"), ("running", "suspended by Slurm")),
    ],
)
def test_a_job_in_the_queue(said, job, standing):
    found = judge_queued({"state": said}, job)
    assert (found.state, found.note) == standing


@pytest.mark.parametrize(
    ("said", "job", "state", "cause", "words"),
    [
        ("running", None, "lost", None, "no longer in the queue, and accounting does not know it, seen last at step 40; its log ends: bye"),
        ("running", accounted("NODE_FAIL"), "stopped", "node_failed", "a node was lost: node2"),
        ("running", accounted("TIMEOUT"), "stopped", "time_limit", "the time limit came"),
        ("running", accounted("OUT_OF_MEMORY"), "failed", None, "killed for memory on node2"),
        ("running", accounted("CANCELLED by 0"), "cancelled", "cancelled", "CANCELLED by 0"),
        ("running", accounted("PREEMPTED"), "stopped", "preempted", "not put back"),
        ("pending", accounted("FAILED", "127:0"), "failed", None, "the job ended (exit code 127:0) before training began; its log ends: bye"),
        ("running", accounted("FAILED"), "lost", None, "failed (exit code 1:0) without a word of the training; its log ends: bye"),
        ("running", accounted("RUNNING"), "lost", None, "accounting says RUNNING"),
    ],
)
def test_a_job_that_has_left_the_queue(said, job, state, cause, words):
    found = judge_gone(RUNNING | {"state": said}, job, "bye")
    assert (found.state, found.cause) == (state, cause)
    assert words in str(found.note)


def test_one_query_each_however_many_runs(tmp_path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr("launch.scheduler.jobs.ask_queue", lambda: asked.append("squeue") or {})
    monkeypatch.setattr("launch.scheduler.jobs.ask_accounting", lambda since: asked.append("sacct") or {})
    jobs = Jobs()
    states = [jobs.standing(RunDir(tmp_path / str(number)), RUNNING | {"job_id": str(number)}).state for number in range(100)]
    assert (asked, set(states)) == (["squeue", "sacct"], {"lost"})


def test_nothing_is_asked_for_runs_that_have_ended(tmp_path, monkeypatch):
    def refuse(*_: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr("launch.scheduler.jobs.ask_queue", refuse)
    assert Jobs().standing(RunDir(tmp_path), RUNNING | {"state": "completed"}) == Standing("completed")


def test_a_silent_cluster_makes_no_run_lost(tmp_path, monkeypatch):
    def fail() -> Any:
        raise SlurmError(Problem("squeue: no answer within 30 s"))

    monkeypatch.setattr("launch.scheduler.jobs.ask_queue", fail)
    assert Jobs().standing(RunDir(tmp_path), RUNNING) == Standing("running", None, "as it said last: squeue: no answer within 30 s")


def test_a_job_without_a_log_may_not_see_its_run_directory():
    found = judge_gone({"state": "pending", "job_id": "12"}, accounted("FAILED", "0:53"), None)
    assert found.state == "failed"
    words = "it wrote no log: node2 does not see the run directory, it seems (run_root in the cluster file)"
    assert found.note == f"the job ended (exit code 0:53) before training began; {words}"


@pytest.mark.parametrize(("ended", "state"), [("COMPLETED", "completed"), ("FAILED", "failed")])
def test_of_a_stock_script_slurm_alone_knows_the_end(ended, state):
    assert judge_gone({"state": "pending", "job_id": "12", "tells_its_end": False}, accounted(ended), None).state == state


def test_jobs_of_a_run_are_those_submitted_for_it(tmp_path):
    run = RunDir(tmp_path)
    assert job_ids(run, {"job_id": "7_1"}) == ["7_1"]
    run.job_ids.write_text("12\n13\n")
    assert job_ids(run, {"job_id": "12"}) == ["12", "13"]


def test_a_stopped_run_whose_next_job_waits_is_in_the_queue(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    run.job_ids.write_text("12\n13\n")
    waiting = Queued("13", "PENDING", "Dependency", "", "")
    monkeypatch.setattr("launch.scheduler.jobs.ask_queue", lambda: {"13": waiting})
    found = Jobs().standing(run, {"state": "stopped", "cause": "preempted", "job_id": "12"})
    assert (found.state, found.note) == ("requeued", "waits for the job before it in its chain")


def test_a_silent_accounting_is_told_from_one_that_does_not_know():
    found = judge_gone(RUNNING, None, None, is_accounting_silent=True)
    assert found.note == "its job 12 is no longer in the queue, and accounting is off or does not answer, seen last at step 40"


def test_a_stage_whose_job_slurm_took_away_says_what_it_waited_for(tmp_path, monkeypatch):
    """--kill-on-invalid-dep: also where accounting is off."""
    before = RunDir(tmp_path / "before")
    before.path.mkdir()
    update_status(before, state="failed")
    monkeypatch.setattr("launch.scheduler.jobs.ask_queue", dict)
    found = Jobs().standing(RunDir(tmp_path), {"state": "pending", "job_id": "13", "begins_after": str(before.path)})
    assert (found.state, found.note) == ("cancelled", f"the stage before it is failed: {before.path}")
