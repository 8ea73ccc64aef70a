"""`fullrank submit --follow` on a real Slurm: shows what the job says, wherever it goes on, and ends as it did."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ranks import ROOT, clean_environment
from tests.slurm_runs import LONG, PATIENCE_S, preempt, until_attempt

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture
def following(cluster, shared) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Returns a function that submits into a run directory and follows, and returns when that is there."""
    processes: list[subprocess.Popen[str]] = []

    def start(run: Path, site: str, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-P", "-m", "launch", "submit", "./tiny.yaml", "--cluster", site, "--follow", "--run-dir", str(run), *words]
        environment = clean_environment() | cluster.environment | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        processes.append(subprocess.Popen(argv, cwd=shared, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        deadline = time.monotonic() + PATIENCE_S
        while not (run / "job_ids.txt").exists():
            assert time.monotonic() < deadline
            assert processes[-1].poll() is None, processes[-1].communicate()
            time.sleep(0.2)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
    cluster.command("scancel", "--user", "root")


def test_a_job_that_failed_ends_it_with_1_and_the_reason(fullrank, shared):
    (shared / "odd.yaml").write_text(f"{(shared / 'site.yaml').read_text()}setup: ['source /nowhere/activate']\n")
    answer = fullrank("submit", "./tiny.yaml", "--cluster", "./odd.yaml", "--follow", code=1)
    assert "failed: the job ended" in answer.stderr
    assert "before training began" in answer.stderr
    assert "/nowhere/activate: No such file or directory" in answer.stdout


def test_a_job_cancelled_while_it_waited_ends_it_with_130(fullrank, following, shared):
    (shared / "waits.yaml").write_text((shared / "site.yaml").read_text() + "sbatch: {begin: now+1hour}\n")
    process = following(shared / "never", "./waits.yaml")
    fullrank("cancel", str(shared / "never"))
    _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said.splitlines()[-1]) == (130, "cancelled")


@pytest.mark.long
def test_a_preempted_job_is_followed_to_its_end_and_ends_it_with_0(cluster, fullrank, following, shared, until):
    """Every rank and node has logs of its own, in each attempt."""
    run = shared / "followed"
    process = following(run, "./site.yaml", "--nodes", "2", *LONG)
    until(run, "running", step=100)
    preempt(cluster)
    until_attempt(run, 2)
    until(run, "completed")
    seen, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    for attempt in ("0001", "0002"):
        assert (run / "attempts" / attempt / "rank_00000.log").read_text() in seen
    assert fullrank("logs", str(run), "--rank", "1").stdout == (run / "attempts" / "0002" / "rank_00001.log").read_text()
    assert fullrank("logs", str(run), "--node", "1", "--attempt", "1").stdout == (run / "attempts" / "0001" / "node_00001.log").read_text()
    assert "--node 0, 1" in fullrank("logs", str(run), "--node", "2", code=None).stderr
