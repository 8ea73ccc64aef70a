"""status, logs, report and resume over runs that ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launch.cli.report import for_terminal
from launch.config.lock import lock_run
from launch.config.run_dir import RunDir, read_json, update_status
from tests.ranks import ROOT


@pytest.fixture
def stopped(fullrank, experiment_file, run_path, monkeypatch):
    monkeypatch.setenv("FAKE_END", "stop")
    fullrank("run", experiment_file, "--processes-per-node", "2")
    monkeypatch.delenv("FAKE_END")
    return run_path()


def test_status_without_runs_shows_how_to_start_one(fullrank, tmp_path):
    answer = fullrank("status")
    assert (answer.code, answer.err) == (0, f"no runs under {tmp_path}/runs\n    try: fullrank run quickstart\n")


def test_status_lists_runs_with_their_state(fullrank, stopped):
    lines = fullrank("status").out.splitlines()
    assert lines[0].split() == ["RUN", "EXPERIMENT", "STATE", "STEP", "SEEN"]
    assert lines[1].split()[:3] == [stopped.name, "tiny", "stopped"]
    assert len(lines) == 2


def test_status_of_a_run_shows_scores_and_how_to_go_on(fullrank, stopped):
    out = fullrank("status", stopped.name).out
    assert "stopped (preempted)" in out
    assert "step 4  loss 0.5  accuracy 0.875" in out
    assert f"fullrank resume {stopped}" in out


def test_status_tells_an_overfit_of_one_batch_from_a_training(fullrank, stopped):
    verdict = "overfit: yes. The loss of one batch of 32 went from 0.7 to 0.01 in 40 steps"
    update_status(RunDir(stopped), state="completed", step=40, total_steps=300, overfits_batch=True, verdict=verdict)
    assert " completed (overfit)  40 " in fullrank("status").out
    shown = fullrank("status", stopped).out
    assert "completed (preempted), an overfit of one batch" in shown
    assert verdict in shown


def test_status_lists_a_run_that_cannot_be_read_and_one_directly_under_the_run_root(fullrank, stopped, tmp_path):
    (tmp_path / "runs" / "named").mkdir()
    update_status(RunDir(tmp_path / "runs" / "named"), state="completed", experiment="other")
    (stopped / "status.json").write_text('{"state": 5}')
    answer = fullrank("status")
    assert [line.split()[:3] for line in answer.out.splitlines()[1:]] == [[stopped.name, "tiny", "unreadable"], ["named", "other", "completed"]]
    assert answer.err.startswith(
        f"warning: {stopped}: has no readable status.json: state: 5 is no state\n    try: cp {stopped}/attempts/0001/ended.json"
    )
    assert [run["state"] for run in json.loads(fullrank("status", "--json").out)] == ["unreadable", "completed"]


@pytest.mark.parametrize(("state", "warning"), [("completed", "warning: {path}:2: the line is damaged and passed over\n"), ("stopped", "")])
def test_status_warns_of_the_torn_last_record_of_a_completed_run(fullrank, stopped, state, warning):
    update_status(RunDir(stopped), state=state)
    (stopped / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 0.5}\n{"step": 1, "split": "te')
    assert fullrank("status", stopped).err == warning.format(path=stopped / "metrics.jsonl")


def test_status_json_is_for_programs(fullrank, stopped):
    facts = json.loads(fullrank("status", stopped, "--json").out)
    assert (facts["state"], facts["run"], facts["metrics"]["test"]["accuracy"]) == ("stopped", str(stopped), 0.875)
    assert [run["state"] for run in json.loads(fullrank("status", "--json").out)] == ["stopped"]


def test_no_runs_is_no_error(fullrank):
    answer = fullrank("status")
    assert (answer.code, answer.out) == (0, "")


def test_unknown_run_names_the_newest(fullrank, stopped):
    answer = fullrank("status", "nothing")
    assert answer.code == 2
    assert stopped.name in answer.err


def test_logs_show_a_rank(fullrank, stopped):
    assert fullrank("logs", stopped).out == (stopped / "attempts/0001/rank_00000.log").read_text()
    assert fullrank("logs", "latest", "--rank", "1").out.startswith("started 1 2 1 ")
    assert fullrank("logs", "latest", "-f").out.startswith("started 0 2 1 ")


def test_logs_name_a_file_in_the_place_of_an_attempt(fullrank, stopped):
    (stopped / "attempts/0002").touch()
    assert fullrank("logs", stopped).out.startswith("started 0 2 1 ")
    answer = fullrank("logs", stopped, "--attempt", "2")
    assert (answer.code, answer.err.splitlines()[0]) == (2, f"error: {stopped}/attempts/0002: is a file, and should be the folder of an attempt")


def test_logs_of_a_rank_that_is_not_there_name_those_that_are(fullrank, stopped):
    answer = fullrank("logs", "latest", "--rank", "5")
    assert (answer.code, answer.err) == (2, f"error: {stopped}/attempts/0001: rank 5 has no log in this attempt\n    allowed: --rank 0, 1\n")


def test_resume_is_a_new_attempt_of_the_same_plan(fullrank, stopped):
    before = (stopped / "attempts/0001/plan.json").read_text()
    answer = fullrank("resume", stopped)
    assert answer.code == 0, answer.err
    plan = read_json(stopped / "attempts/0002/plan.json")
    assert (plan["world_size"], plan["attempt"], plan["run"]) == (2, 2, str(stopped))
    assert "started 0 2 2 " in answer.err
    status = read_json(stopped / "status.json")
    assert (status["state"], status["attempt"], status["cause"]) == ("completed", 2, None)
    assert (stopped / "attempts/0001/plan.json").read_text() == before


def test_status_of_a_later_attempt_has_no_message_of_an_earlier_failure(fullrank, experiment_file, run_path, monkeypatch):
    monkeypatch.setenv("FAKE_END", "fail")
    fullrank("run", experiment_file)
    assert "message  " in fullrank("status", run_path()).out
    monkeypatch.delenv("FAKE_END")
    assert fullrank("resume", run_path()).code == 0
    assert "message" not in fullrank("status", run_path()).out
    assert (read_json(run_path() / "attempts/0001/ended.json") or {})["message"]


def test_a_run_with_a_broken_status_is_resumed(fullrank, stopped):
    (stopped / "status.json").write_text('{"state": ')
    answer = fullrank("resume", stopped)
    assert answer.code == 0, answer.err
    assert f"warning: {stopped} has no readable status.json: it is no whole JSON; it counts how attempt 1 ended\n" in answer.err
    assert (read_json(stopped / "status.json") or {})["state"] == "completed"


def test_completed_run_is_not_resumed(fullrank, stopped):
    fullrank("resume", stopped)
    answer = fullrank("resume", stopped)
    assert answer.code == 2
    assert "the run is completed" in answer.err
    assert not (stopped / "attempts/0003").exists()


def test_living_run_is_not_resumed(fullrank, stopped):
    update_status(RunDir(stopped), state="running", host=socket.gethostname(), agent={"pid": os.getpid(), "attempt": 1})
    answer = fullrank("resume", stopped)
    assert answer.code == 2
    assert "still alive: running" in answer.err


AGENT = """
import signal, sys
from pathlib import Path
from launch.config.run_dir import RunDir, update_status
signal.signal(signal.SIGTERM, lambda *_: update_status(RunDir(Path(sys.argv[1])), state=sys.argv[2]))
print(flush=True)
while True:
    signal.pause()
"""
"""A stand-in that writes how the run ends once it is asked to stop."""


@pytest.mark.parametrize(
    ("becomes", "told"),
    [
        ("completed", "completed at step 4, before it heard of it: there is nothing left to cancel, or to go on with\n"),
        ("running", "still running at step 4: it has been asked to save and leave; at once: fullrank cancel {run} --now\n"),
        ("stopped", "cancelled at step 4; fullrank resume {run} would go on with it\n"),
    ],
)
def test_cancel_tells_what_became_of_the_run(becomes, told, fullrank, stopped):
    agent = subprocess.Popen([sys.executable, "-c", AGENT, stopped, becomes], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        update_status(RunDir(stopped), state="running", step=4, ended=None, agent={"pid": agent.pid, "attempt": 1}, host=socket.gethostname())
        answer = fullrank("cancel", stopped, "--wait", "0" if becomes == "running" else "20")
        assert answer.out == told.format(run=stopped), answer.err
    finally:
        agent.kill()
        agent.communicate()


def test_second_resume_at_once_is_refused_and_starts_nothing(fullrank, stopped):
    with lock_run(RunDir(stopped)):
        answer = fullrank("resume", stopped)
    assert answer.code == 2
    assert "the run is alive: pid " in answer.err
    assert not (stopped / "attempts/0002").exists()


def test_refused_resume_is_not_told_to_go_on(fullrank, stopped, monkeypatch):
    (stopped / "checkpoints/step_4").mkdir(parents=True)
    (stopped / "checkpoints/step_4/manifest.json").touch()
    monkeypatch.setenv("FAKE_END", "refuse")
    answer = fullrank("resume", stopped)
    assert answer.code == 2
    assert "go on with" not in answer.err


def test_pictures_of_a_report_are_files_on_a_terminal():
    line = "| 2.31 | cat | ![validation 12](figures/validation-12.png) | 12 |"
    assert for_terminal(line, Path("/runs/tiny/1")) == "| 2.31 | cat | /runs/tiny/1/figures/validation-12.png | 12 |"


def test_report_is_written_by_the_training_side(fullrank, stopped):
    answer = fullrank("report", stopped)
    assert (answer.code, answer.out) == (0, f"{stopped}/report.md\n{stopped}/report.html\n\n# written again\n")
