"""How an attempt on several nodes ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launch.config.run_dir import Attempt, write_json
from launch.scheduler.job_end import judge_attempt

PLAN = {"nodes": 2}


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    made = Attempt(tmp_path / "attempts" / "0001")
    made.failures.mkdir(parents=True)
    return made


def report(node: int, offset: float = 0.0, failure: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"node": node, "host": f"node{node + 1}", "clock_offset_s": offset, "codes": [0], "failure": failure}


def failure(rank: int, time: float, kind: str = "exception", message: str = "boom", **more: Any) -> dict[str, Any]:
    return {"rank": rank, "host": f"node{rank + 1}", "pid": 1, "time": time, "kind": kind, "message": message, **more}


def test_both_done(attempt):
    assert judge_attempt(attempt, PLAN, {"state": "completed"}, [report(0), report(1)], 0, False).state == "completed"


def test_the_first_failure_by_a_common_clock(attempt):
    write_json(attempt.rank_failure(0), failure(0, 100.0, exception="ValueError"))
    write_json(attempt.rank_failure(1), failure(1, 105.0, exception="KeyError"))  # its clock is ten seconds fast
    ending = judge_attempt(attempt, PLAN, {"state": "running"}, [report(0), report(1, offset=-10.0)], 1, False)
    assert (ending.state, ending.message, ending.num_others) == ("failed", "rank 1 on node2: KeyError: boom", 1)


def test_lost_contact_is_not_the_first_failure(attempt):
    write_json(attempt.rank_failure(0), failure(0, 100.0, exception="RuntimeError", message="Connection closed by peer"))
    ending = judge_attempt(
        attempt, PLAN, {"state": "running"}, [report(0), report(1, failure=failure(1, 101.0, "killed", "rank 1 was killed by SIGKILL"))], 1, False
    )
    assert (ending.state, ending.message) == ("failed", "rank 1 on node2: rank 1 was killed by SIGKILL")


def test_a_node_that_says_nothing_was_lost(attempt):
    write_json(attempt.rank_failure(0), failure(0, 100.0, exception="RuntimeError", message="Connection reset by peer"))
    ending = judge_attempt(attempt, PLAN, {"state": "running"}, [report(0)], 1, False)
    assert (ending.state, ending.cause, ending.message) == (
        "stopped",
        "node_failed",
        "node 1 of the job was lost, or killed there: nothing was heard of its end",
    )


def test_a_node_that_slurm_gave_up_is_named_although_the_rest_was_warned_as_for_a_preemption(attempt):
    write_json(attempt.rank_failure(0), failure(0, 100.0, exception="RuntimeError", message="Connection reset by peer"))
    attempt.stop_file.write_text("preempted\n")
    ending = judge_attempt(attempt, PLAN, {"state": "running"}, [report(0)], 1, False, lost=["node2"])
    assert (ending.state, ending.cause, ending.message) == ("stopped", "node_failed", "node2 was lost: training goes on from the last checkpoint")


@pytest.mark.parametrize("cause", ["preempted", "time_limit", "user"])
def test_an_agreed_stop(attempt, cause):
    ending = judge_attempt(attempt, PLAN, {"state": "stopped", "cause": cause}, [report(0), report(1)], 0, False)
    assert (ending.state, ending.cause) == ("stopped", cause)


def test_a_stop_that_came_too_late_to_save(attempt):
    attempt.stop_file.write_text("preempted\n")
    ending = judge_attempt(attempt, PLAN, {"state": "running"}, [], 137, False)
    assert (ending.state, ending.cause) == ("stopped", "preempted")


def test_cancelled_wins_over_what_the_ranks_said(attempt):
    ending = judge_attempt(attempt, PLAN, {"state": "stopped", "cause": "preempted"}, [report(0), report(1)], 0, was_cancelled=True)
    assert (ending.state, ending.cause) == ("cancelled", "cancelled")


def test_srun_that_started_no_agent(attempt):
    ending = judge_attempt(attempt, PLAN, {"state": "running"}, [], 1, False)
    assert ending.state == "failed"
    assert "srun ended with exit code 1 and no agent has reported" in str(ending.message)


def test_what_kept_the_agents_from_starting_is_told(attempt):
    attempt.node_log(1).write_text("container: no such image\n\n")
    ending = judge_attempt(attempt, PLAN, {"state": "running"}, [], 255, False)
    assert ending.message == "srun ended with exit code 255 and no agent has reported: node_00001.log ends: container: no such image"
