"""Stopped by a real Slurm, by a person or by a lost node: saved, put back, and gone on from to the same weights."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from tests.slurm_runs import (
    LONG,
    PATIENCE_S,
    SLOW_SAVE_S,
    STEPS,
    freeze_in_save,
    logs_of,
    losses,
    preempt,
    rank_pid,
    until_attempt,
    wait_for_nodes,
    weights,
    whole_run,
)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

CUT = os.environ.get("FULLRANK_TEST_CUT", "node1").split(",")
PREEMPTIONS = int(os.environ.get("FULLRANK_TEST_PREEMPTIONS", "1"))
AFTER_CANCEL_S = float(os.environ.get("FULLRANK_TEST_AFTER_CANCEL", "8"))
"""node1,node2, five, and three minutes, where all of it is to be shown: docs/measurements.md."""


@pytest.mark.parametrize("partition", ["main", pytest.param("graced", marks=pytest.mark.long)], ids=["grace-0", "grace-30"])
def test_preempted_job_goes_on_to_the_same_weights(partition, cluster, submit, until, undisturbed):
    whole_run(undisturbed, submit, until)
    run = submit("--nodes", "2", "--partition", partition, *LONG)
    for number in range(1, PREEMPTIONS + 1):
        until(run, "running", step=STEPS * number // (PREEMPTIONS + 2))
        preempt(cluster)
        until_attempt(run, number + 1)
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))
    assert weights(run) == weights(undisturbed["run"])
    assert losses(run) == losses(undisturbed["run"])


@pytest.mark.long
def test_a_node_that_saves_slowly_is_not_ended(cluster, submit, until):
    """The rank of node2 is frozen inside a real save of its share (FSDP2), as by a file server that does not answer."""
    whole = submit("--nodes", "2", "--strategy", "fsdp2", *LONG)
    until(whole, "completed")
    run = submit("--nodes", "2", "--strategy", "fsdp2", *LONG)
    longest = 0.0
    for number in range(1, 5):
        job = until(run, "running", step=60 * number)["job_id"]
        pid = rank_pid(cluster, "node2", run)
        saved = set((run / "checkpoints").glob("checkpoint-*"))
        cluster.command("scancel", "--signal=USR2", "--batch", job)
        frozen_at = freeze_in_save(run, pid)
        until_attempt(run, number + 1)
        (last,) = sorted(set((run / "checkpoints").glob("checkpoint-*")) - saved, key=lambda path: path.stat().st_mtime)[-1:]
        longest = max(longest, last.joinpath("manifest.json").stat().st_mtime - frozen_at)
        if longest > SLOW_SAVE_S:
            break
    assert longest > SLOW_SAVE_S  # the save itself waited for the frozen rank
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))
    assert weights(run) == weights(whole)


@pytest.mark.long
def test_drill_warns_the_real_job_and_compares_it_with_the_undisturbed_one(cluster, fullrank, shared):
    words = ("verify", "./tiny.yaml", "evaluate.every=null", "--cluster", "./site.yaml", "--nodes", "2", "--processes-per-node", "1")
    try:
        ended = fullrank(*words, "--steps", str(STEPS), "--run-dir", str(shared / "drill"), "--json", timeout_s=2 * PATIENCE_S)
    finally:
        cluster.command("scancel", "--user", "root")
    facts = json.loads(ended.stdout)
    assert facts["is_identical"], facts["differences"]
    assert (facts["num_records"], STEPS // 2 <= facts["stopped_at"] < STEPS) == (STEPS + 1, True)  # one evaluation, at the end
    stopped = shared / "drill" / "stopped"
    assert "stopped (time_limit); it goes back into the queue" in logs_of(stopped)
    assert json.loads((stopped / "attempts" / "0002" / "start.json").read_text())["first_step"] == facts["stopped_at"]


def test_cancel_saves_first_and_the_job_does_not_come_back(cluster, fullrank, submit, until):
    run = submit("--nodes", "2", *LONG)
    job = until(run, "running", step=100)["job_id"]
    answer = fullrank("cancel", str(run))
    status = until(run, "cancelled")
    assert re.match(r"cancelled at step \d+; fullrank resume", answer.stdout)
    assert (run / "checkpoints" / f"checkpoint-{status['step']}" / "manifest.json").exists()
    time.sleep(AFTER_CANCEL_S)  # longer than a requeued job waits here (cred_expire)
    assert cluster.command("squeue", "-h", "-j", job, check=False) == ""
    resumed = fullrank("resume", str(run))
    assert resumed.stdout.startswith("job ")
    until(run, "running", step=status["step"] + 20)
    fullrank("cancel", str(run), "--now")
    assert until(run, "cancelled")


def test_a_waiting_job_says_why_and_is_cancelled_at_once(cluster, fullrank, submit, until):
    blocking = cluster.command(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=3", "--ntasks=3", "--output=/dev/null", "--wrap", "sleep 60"
    ).strip()
    run = submit("--nodes", "2")
    note = until(run, "pending")["note"]
    assert any(words in note for words in ("waits for nodes", "higher priority", "not looked at it yet"))
    assert fullrank("cancel", str(run)).stdout.startswith("cancelled")
    cluster.command("scancel", blocking)
    assert until(run, "cancelled")


@pytest.mark.long
def test_a_lost_node_is_named_and_training_goes_on(cluster, submit, until):
    wait_for_nodes(cluster)  # the job is to get node1 and node2, not what an earlier one leaves
    run = submit("--nodes", "2", *LONG)
    until(run, "running", step=100)
    cluster.kill_node("node2")
    try:
        until_attempt(run, 2)
        # The attempt's end says it, where Slurm lets it speak, else the start of the next; both are whole sentences of ours, not srun's words.
        told = ("stopped (node_failed): node2 was lost: training goes on from the last checkpoint", "attempt 1 ended without a word: node2 was lost")
        assert any(sentence in logs_of(run) for sentence in told)
    finally:
        cluster.restart_node("node2")
    assert json.loads((run / "attempts" / "0002" / "start.json").read_text())["first_step"] >= 80
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))


@pytest.mark.long
@pytest.mark.parametrize("node", CUT)
def test_a_node_cut_off_from_the_network_is_given_up(node, cluster, submit, until, undisturbed):
    """The processes on it live on, and are to leave the run alone; node1 has rank 0, the job's script and the lock."""
    wait_for_nodes(cluster)  # the job is to get node1 and node2, not what an earlier one leaves
    run = submit("--nodes", "2", *LONG)
    until(run, "running", step=100)
    cluster.set_cable(node, is_plugged=False)
    try:
        until_attempt(run, 2)
    finally:
        cluster.set_cable(node, is_plugged=True)
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))
    assert losses(run) == losses(whole_run(undisturbed, submit, until))
    assert weights(run) == weights(undisturbed["run"])
    wait_for_nodes(cluster)


@pytest.mark.long
def test_where_preemption_cancels_a_chain_is_submitted_and_goes_on(cluster, fullrank, submit, until):
    run = submit("--nodes", "2", "--partition", "cancelling", *LONG)
    ids = (run / "job_ids.txt").read_text().split()
    assert len(ids) == 4
    until(run, "running", step=100)
    preempt(cluster)
    until_attempt(run, 2)
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))
    deadline = time.monotonic() + 60
    while left := cluster.command("squeue", "-h", "-j", ",".join(ids), "-t", "all", "-o", "%i %T", check=False).splitlines():
        if {line.split()[1] for line in left} <= {"COMPLETED", "CANCELLED", "PREEMPTED"}:
            break
        assert time.monotonic() < deadline, left  # the rest of the chain left the queue by itself
        time.sleep(1)
    assert {line.split()[0] for line in left if line.split()[1] == "CANCELLED"} == set(ids[2:])
