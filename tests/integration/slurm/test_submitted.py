"""Submitted to a real Slurm: the same losses as here, in every form; the code, the paths and the values that were meant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks import ROOT, clean_environment
from tests.slurm_runs import PATIENCE_S, losses

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


ODD_ROOT = """runs $(touch evil) 'a' "b" `touch evil` %j;touch evil"""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--nodes", "3"), id="3x1"),
        pytest.param(("--nodes", "2", "--processes-per-node", "2", "--run-root", ODD_ROOT), id="2x2", marks=pytest.mark.long),
        pytest.param(("--nodes", "2", "--launcher", "accelerate", "--run-root", ODD_ROOT), id="2x1-stock"),
        *(
            pytest.param(("--nodes", nodes, "--processes-per-node", ranks, "--strategy", strategy, *stock), id=name, marks=pytest.mark.long)
            for nodes, ranks, strategy, stock, name in [
                ("1", "1", "fsdp2", (), "1x1-fsdp2"),
                ("2", "1", "fsdp2", ("--launcher", "accelerate"), "2x1-fsdp2-stock"),
                ("2", "1", "zero3", (), "2x1-zero3"),
                ("1", "2", "zero1", ("--launcher", "accelerate"), "1x2-zero1-stock"),
            ]
        ),
    ],
)
def test_losses_are_those_of_one_process_here(words, submit, until, local_losses, shared):
    """Also where the folder of all runs has a name that would be code, were it not quoted."""
    run = submit(*words)
    until(run, "completed")
    found = losses(run)
    assert found.keys() == local_losses.keys()
    assert max(abs(found[step] - loss) / loss for step, loss in local_losses.items()) < 1e-5
    assert [attempt.name for attempt in (run / "attempts").iterdir()] == ["0001"]
    assert not [folder for folder in (shared, Path.cwd(), run) if (folder / "evil").exists()]


def test_dry_run_writes_nothing_and_prints_the_script(fullrank, shared):
    before = sorted(shared.glob("runs/*/*"))
    answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--nodes", "2", "--dry-run")
    assert answer.stdout.startswith("#!/bin/bash\n")
    assert "#SBATCH --nodes=2\n" in answer.stdout
    assert sorted(shared.glob("runs/*/*")) == before


def test_sbatch_refusal_leaves_nothing_behind(fullrank, shared):
    (shared / "odd.yaml").write_text((shared / "site.yaml").read_text() + "reservation: nowhere\n")
    before = sorted((shared / "runs").glob("*/*"))
    answer = fullrank("submit", "./tiny.yaml", "--cluster", "./odd.yaml", code=None)
    assert answer.returncode
    assert "reservation" in answer.stderr
    assert "try: " in answer.stderr
    assert sorted((shared / "runs").glob("*/*")) == before


def test_the_job_runs_the_code_that_was_submitted(submit, shared, until, fullrank):
    script = shared / "mine.py"
    script.write_text("import os\nprint('first', os.environ.get('RANK'), flush=True)\n")
    answer = fullrank(
        "submit", "--cluster", "./site.yaml", "--nodes", "2", "--json", "--strategy", "cpu", "--script", str(script), "--", "a b", "$(touch evil)"
    )
    script.write_text("raise SystemExit('changed')\n")
    run = Path(json.loads(answer.stdout)["run"])
    until(run, "completed")
    assert (run / "attempts" / "0001" / "rank_00001.log").read_text() == "first 1\n"
    assert not (shared / "evil").exists()


def test_what_would_be_code_is_refused(fullrank, shared):
    fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--run-root", f"{shared}/a\ntouch evil", code=3)
    fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "name=$(touch evil)", code=2)
    assert not (shared / "evil").exists()


@pytest.mark.long
def test_run_in_an_allocation_trains_on_its_nodes(cluster, shared, local_losses):
    words = ["salloc", "--quiet", "--nodes=2", "--cpus-per-task=2", "--time=10", sys.executable, "-P", "-m", "launch", "run", "./tiny.yaml"]
    environment = (
        clean_environment() | cluster.environment | {"PYTHONPATH": str(ROOT), "FULLRANK_RUN_ROOT": str(shared / "allocated"), "OMP_NUM_THREADS": "1"}
    )
    ended = subprocess.run(words, cwd=shared, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (run,) = (shared / "allocated" / "tiny").iterdir()
    assert json.loads((run / "attempts" / "0001" / "nodes" / "node_00001.json").read_text())["host"] == "node2"
    found = losses(run)
    assert max(abs(found[step] - loss) / loss for step, loss in local_losses.items()) < 1e-5


def test_a_login_node_is_no_place_to_train(fullrank):
    answer = fullrank("run", "./tiny.yaml", code=3)
    assert "this is a login node" in answer.stderr
