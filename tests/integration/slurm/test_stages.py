"""A pipeline submitted to a real Slurm: a job a stage, each behind the one before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.slurm_runs import losses, settled

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

PIPELINE = """\
name: two
stages:
  first: {experiment: ./tiny.yaml}
  second: {experiment: ./tiny.yaml, overrides: {model.source: stages.first}}
"""


def test_stages_wait_for_each_other_and_go_on_after_a_cancel(cluster, fullrank, shared, until):
    (shared / "two.yaml").write_text(PIPELINE)
    blocking = cluster.command("sbatch", "--parsable", "--partition=urgent", "--nodes=3", "--ntasks=3", "--output=/dev/null", "--wrap", "sleep 300")
    try:
        facts = json.loads(fullrank("submit", "./two.yaml", "--cluster", "./site.yaml", "--json").stdout)
        first, second = (Path(stage["run"]) for stage in facts["stages"])
        assert until(second, "pending")["note"] == "waits for the job before it in its chain"
        fullrank("cancel", str(first))
        assert settled(fullrank, second)["note"] == f"the stage before it is cancelled: {first}"
    finally:
        cluster.command("scancel", blocking.strip())
    fullrank("resume", facts["pipeline"])
    until(first, "completed")
    until(second, "completed")
    assert yaml.safe_load((second / "resolved.yaml").read_text())["model"]["source"] == str(first)
    assert losses(second)[1] < losses(first)[1]  # it began where the other had ended
    assert "every stage of the pipeline is completed" in fullrank("resume", facts["pipeline"], code=None).stderr
