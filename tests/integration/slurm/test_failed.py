"""Failed on a real Slurm, before training or in it: told once, with the node and the reason, and not started again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.slurm_runs import LONG, rank_pid, settled

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


def test_a_failure_is_reported_once_and_not_started_again(cluster, submit, until, shared):
    sound = (shared / "train.tsv").read_text()
    (shared / "torn.tsv").write_text(f"{sound}a row without its label\n{sound}")
    run = submit("--nodes", "2", "data.splits.train=torn.tsv")
    status = until(run, "failed")
    assert "torn.tsv" in status["message"]
    assert cluster.command("squeue", "-h", "-j", status["job_id"], check=False) == ""


def test_a_killed_rank_on_another_node_is_the_first_failure(cluster, fullrank, submit, until):
    run = submit("--nodes", "2", *LONG)
    until(run, "running", step=50)
    os.kill(rank_pid(cluster, "node2", run), 9)
    assert until(run, "failed")["message"] == "rank 1 on node2: rank 1 was killed by SIGKILL"
    failure = json.loads((run / "attempts" / "0001" / "failure.json").read_text())
    assert (failure["rank"], failure["host"], failure["kind"]) == (1, "node2", "killed")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("modules: [no_such_module]", "module: command not found"),
        ("python: /nowhere/env/bin/python", "/nowhere/env/bin/python: No such file or directory"),
        ("setup: ['source /nowhere/activate']", "/nowhere/activate: No such file or directory"),
    ],
    ids=["module", "venv", "setup"],
)
def test_a_job_that_dies_before_training_is_told(line, words, fullrank, shared):
    (shared / "odd.yaml").write_text(f"{(shared / 'site.yaml').read_text()}{line}\n")
    run = Path(json.loads(fullrank("submit", "./tiny.yaml", "--cluster", "./odd.yaml", "--json").stdout)["run"])
    status = settled(fullrank, run)
    assert status["state"] == "failed"
    assert "before training began" in status["note"]
    assert words in status["note"]


@pytest.mark.parametrize("node", ["node1", "node2"], ids=["the-first", "another"])
def test_a_node_that_does_not_see_the_run_directory_is_named(node, cluster, fullrank, shared):
    root = shared / "unshared"
    root.mkdir(exist_ok=True)
    with cluster.hidden(node, root):
        answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--nodes", "2", "--run-root", str(root), "--json")
        status = settled(fullrank, Path(json.loads(answer.stdout)["run"]))
    assert status["state"] == "failed"
    told = f"{status.get('note')} {status.get('message')}"
    assert node in told
    assert "run_root" in told


def test_a_node_with_other_versions_is_refused_before_torch_loads(cluster, fullrank, shared, tmp_path):
    """node2 finds another torch before the environment's, by its metadata alone."""
    other = tmp_path / "other"
    (other / "torch-0.1.dist-info").mkdir(parents=True)
    (other / "torch-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.1\n")
    change = f"if [[ $(hostname) == node2 ]]; then export PYTHONPATH={other}:$PYTHONPATH; fi"
    (tmp_path / "python").write_text(f'#!/bin/bash\n{change}\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    (shared / "odd.yaml").write_text(f"{(shared / 'site.yaml').read_text()}python: {tmp_path}/python\n")
    run = Path(json.loads(fullrank("submit", "./tiny.yaml", "--cluster", "./odd.yaml", "--nodes", "2", "--json").stdout)["run"])
    status = settled(fullrank, run)
    assert status["state"] == "failed"
    assert "torch differs: node1" in status["message"]
    assert "node2 0.1" in status["message"]
