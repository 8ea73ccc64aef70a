"""sync calls the upload once, or until the run has ended, and gives up on a server that stays away."""

from __future__ import annotations

import json
import os
import socket

import pytest

from launch.config.run_dir import RunDir, update_status


@pytest.fixture
def stopped(fullrank, experiment_file, run_path, monkeypatch):
    monkeypatch.setenv("FAKE_END", "stop")
    fullrank("run", experiment_file)
    return run_path()


def calls(run):
    return [line.split()[:2] for line in (run / "sync_calls.txt").read_text().splitlines()]


def test_one_pass_says_what_was_sent(fullrank, stopped, monkeypatch):
    monkeypatch.setenv("FAKE_SYNC", "0")
    assert fullrank("sync", stopped).out == "2 rows sent, 1 offline part; W&B has 3\n"
    assert json.loads(fullrank("sync", stopped, "--json").out) == {"run": str(stopped), "rows": 3, "sent": 2, "parts": ["offline-run-1"]}
    assert calls(stopped) == [["--state", "stopped"]] * 2


@pytest.mark.parametrize("code", [1, 2, 3])
def test_the_uploads_code_is_passed_through(fullrank, stopped, monkeypatch, code):
    monkeypatch.setenv("FAKE_SYNC", str(code))
    assert (fullrank("sync", stopped).code, fullrank("sync", stopped).out) == (code, "")


def test_watching_gives_up_after_five_failures_in_a_row(fullrank, stopped, monkeypatch):
    update_status(RunDir(stopped), state="running", host=socket.gethostname(), agent={"pid": os.getpid(), "attempt": 1})
    monkeypatch.setenv("FAKE_SYNC", "1 0 1 1 1 1 1 0")
    assert fullrank("sync", stopped, "--watch", "--every", "0.1").code == 1
    assert calls(stopped) == [["--state", "running"]] * 7


def test_watching_without_a_login_does_not_try_again(fullrank, stopped, monkeypatch):
    update_status(RunDir(stopped), state="running", host=socket.gethostname(), agent={"pid": os.getpid(), "attempt": 1})
    monkeypatch.setenv("FAKE_SYNC", "3")
    assert fullrank("sync", stopped, "--watch", "--every", "0.1").code == 3
    assert len(calls(stopped)) == 1


def test_watching_a_run_that_has_ended_tries_again_until_it_is_sent(fullrank, stopped, monkeypatch):
    monkeypatch.setenv("FAKE_SYNC", "1 1 0 0")
    assert fullrank("sync", stopped, "--watch", "--every", "0.1").code == 0
    assert calls(stopped) == [["--state", "stopped"]] * 3
