"""Many runs on a real Slurm as one job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


def test_an_array_of_seeds_is_one_job_with_a_table_of_results(cluster, fullrank, until, shared):
    answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--seeds", "2", "--at-most", "1", "--json")
    facts = json.loads(answer.stdout)
    for run in facts["runs"]:
        until(Path(run), "completed")
    status = json.loads(fullrank("status", facts["sweep"], "--json").stdout)
    found = [(run["overrides"], run["state"]) for run in status["runs"]]
    assert sorted(found) == [(["seed=1"], "completed"), (["seed=2"], "completed")]
    values = [run["validation"] for run in status["runs"]]
    assert values == sorted(values)
    assert {json.loads((Path(run) / "status.json").read_text())["job_id"] for run in facts["runs"]} == {
        f"{facts['job_id']}_0",
        f"{facts['job_id']}_1",
    }


def test_a_thousand_tasks_are_one_sbatch(cluster, fullrank, shared):
    (shared / "waits.yaml").write_text((shared / "site.yaml").read_text() + "sbatch: {begin: now+1hour}\n")
    facts = json.loads(fullrank("submit", "./tiny.yaml", "--cluster", "./waits.yaml", "--seeds", "1000", "--at-most", "5", "--json").stdout)
    assert len(facts["runs"]) == 1000
    assert cluster.command("squeue", "-h", "-o", "%i").split() == [f"{facts['job_id']}_[0-999%5]"]
    assert fullrank("cancel", facts["sweep"]).stdout == "cancelled\n"
    assert cluster.command("squeue", "-h") == ""
