"""Which nodes a job has lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import Problem
from launch.config.run_dir import RunDir
from launch.scheduler import lost_nodes
from launch.scheduler.commands import SlurmError
from launch.scheduler.lost_nodes import find_lost_nodes, log_size

NODES = {"slurm_job_nodelist": "node[1-3]", "log_name": "12"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = RunDir(tmp_path)
    found.job_logs.mkdir()
    return found


@pytest.fixture
def down(monkeypatch) -> list[str]:
    """What sinfo says is down; every name it was asked for."""
    names: list[str] = []
    monkeypatch.setattr(lost_nodes, "ask", lambda *argv: "\n".join(names))
    return names


def test_a_node_that_is_down_now_was_lost(run, down):
    down += ["node2", "node2"]
    assert find_lost_nodes(run, NODES) == ["node2"]


def test_a_node_that_has_come_back_was_lost_if_srun_said_so(run, down):
    (run.job_logs / "12.log").write_text("srun: error: Node failure on node[2-3]\nsrun: error: Timed out waiting for job step\n")
    assert find_lost_nodes(run, NODES) == ["node2", "node3"]


def test_what_srun_said_in_an_earlier_attempt_does_not_count(run, down):
    log = run.job_logs / "12.log"
    log.write_text("srun: error: Node failure on node3\n")
    begun = NODES | {"log_begins": log_size(run, "12")}
    assert find_lost_nodes(run, begun) == []
    with log.open("a") as file:
        file.write("srun: error: Node failure on node1\n")
    assert find_lost_nodes(run, begun) == ["node1"]


def test_other_nodes_are_not_this_jobs(run, down):
    down += ["node9"]
    (run.job_logs / "12.log").write_text("srun: error: Node failure on node8\n")
    assert find_lost_nodes(run, NODES) == []


def test_nobody_is_named_where_slurm_does_not_answer_and_there_is_no_log(run, monkeypatch):
    def refuse(*argv: str) -> str:
        raise SlurmError(Problem("sinfo: Unable to contact slurm controller"))

    monkeypatch.setattr(lost_nodes, "ask", refuse)
    assert find_lost_nodes(run, NODES) == []
    assert find_lost_nodes(run, {}) == []
