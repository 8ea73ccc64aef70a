"""Slurm's commands, played by small scripts: what is tried again, what is not, and what a person is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.config.errors import Problem
from launch.scheduler import commands as slurm
from launch.scheduler.commands import SlurmError, advice, ask, ask_queue, submit_script, try_site

BUSY = "echo 'squeue: error: slurm_load_jobs: Unable to contact slurm controller (connect failure)' >&2; exit 1"


@pytest.fixture
def play(tmp_path: Path, monkeypatch) -> Callable[..., Path]:
    """Returns a function that puts a command of Slurm's on the PATH: a line of shell; `$N` counts its calls from 1."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "_TIMEOUT_S", 2)
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)

    def put(name: str, line: str) -> Path:
        calls, path = tmp_path / f"{name}.calls", tmp_path / name
        path.write_text(f'#!/bin/bash\necho "$*" >>{calls}\nN=$(wc -l <{calls})\n{line}\n')
        path.chmod(0o755)
        calls.touch()
        return calls

    return put


def test_a_busy_controller_is_asked_again(play):
    calls = play("squeue", f"if ((N < 3)); then {BUSY}; fi; echo '12|RUNNING|None|N/A|node1'")
    assert list(ask_queue()) == ["12"]
    assert len(calls.read_text().splitlines()) == 3


def test_a_controller_that_stays_away_is_said(play):
    calls = play("squeue", BUSY)
    with pytest.raises(SlurmError, match="Unable to contact slurm controller") as caught:
        ask_queue()
    assert caught.value.problems[0].fix == "try again in a minute; scontrol ping shows whether it is up"
    assert len(calls.read_text().splitlines()) == 3


def test_a_command_that_hangs_is_ended(play, monkeypatch):
    monkeypatch.setattr(slurm, "_TIMEOUT_S", 0.2)
    play("squeue", "exec sleep 60")
    with pytest.raises(SlurmError, match=r"squeue: no answer within 0.2 s"):
        ask_queue()


def test_a_refusal_is_not_tried_again(play):
    calls = play("sinfo", "echo 'sinfo: error: Invalid user' >&2; exit 1")
    with pytest.raises(SlurmError, match="Invalid user"):
        ask("sinfo")
    assert len(calls.read_text().splitlines()) == 1


def test_a_submission_is_tried_once_and_its_answer_looked_up_in_the_queue(play, tmp_path):
    script = tmp_path / "submit.sbatch"
    calls = play("sbatch", "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1")
    play("squeue", f"echo '41|/another/script'; echo '42|{script}'")
    assert submit_script(script, tmp_path) == "42"
    assert len(calls.read_text().splitlines()) == 1


def test_a_submission_that_is_not_in_the_queue_has_failed(play, tmp_path):
    play("sbatch", "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1")
    play("squeue", "true")
    with pytest.raises(SlurmError, match="Socket timed out"):
        submit_script(tmp_path / "submit.sbatch", tmp_path)


def test_a_later_link_is_not_taken_for_the_one_before_it(play, tmp_path):
    script = tmp_path / "submit.sbatch"
    play("sbatch", "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1")
    play("squeue", f"echo '42|{script}'")
    with pytest.raises(SlurmError, match="Socket timed out"):
        submit_script(script, tmp_path, ["--dependency=afterany:42"])


def test_an_answer_without_a_job_id_is_told(play, tmp_path):
    play("sbatch", "echo 'filter plugin: hello'")
    with pytest.raises(SlurmError, match="did not say a job id: 'filter plugin: hello'"):
        submit_script(tmp_path / "submit.sbatch", tmp_path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Invalid partition name specified", "--partition"),
        ("Invalid account or account/partition combination specified", "partition"),
        ("Invalid qos specification", "qos"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "--time"),
        ("Requested node configuration is not available", "gpus_per_node"),
        ("Invalid generic resource (gres) specification", "gpu_type"),
        ("Invalid feature specification", "constraint"),
        ("Requested reservation is invalid", "scontrol show reservation"),
        ("Node count specification invalid", "--nodes"),
        ("Job dependency problem", "is gone"),
        ("slurm_load_ctl_conf error: Socket timed out on send/recv operation", "scontrol ping"),
        ("Unable to connect: Connection refused", "scontrol ping"),
    ],
)
def test_a_refusal_says_what_to_change(said, words):
    assert words in str(advice(said))


def test_words_that_nobody_knows_get_no_advice():
    assert advice("the moon is in the wrong phase") is None


def test_why_a_cluster_could_not_be_asked_is_said_in_one_line(play, monkeypatch):
    play("sbatch", "")
    play("scontrol", "printf '%s\\n' 'DNS SRV lookup failed' 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1")
    site, unasked = try_site()
    assert (site, unasked.what) == (None, "scontrol: fatal: Could not establish a configuration source")
    assert unasked.fix.startswith("fullrank on the cluster's login node")
    monkeypatch.setenv("PATH", "")
    assert try_site() == (None, Problem("there is no Slurm here"))
