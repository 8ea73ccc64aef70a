from __future__ import annotations

import pytest

from launch.attempts import STARTS_AGAIN, Started, may_start_again, num_without_progress
from launch.config.run_dir import Cause


def attempts(*first_steps: int | None) -> list[Started]:
    return [Started(number, step) for number, step in enumerate(first_steps, start=1)]


@pytest.mark.parametrize(
    ("first_steps", "newest_step", "expected"),
    [
        ((0,), 10, 0),
        ((0,), 0, 1),
        ((0, 0), 10, 0),
        ((0, 10, 20), 30, 0),
        ((0, 10, 10, 10), 10, 3),
        ((0, 10, 10), 20, 0),
        ((None, None), 0, 2),
        ((0, 10, None), 10, 2),
        ((0, None, 10), 10, 2),
        ((), 0, 0),
    ],
)
def test_attempts_without_a_new_checkpoint_are_counted_from_the_end(first_steps, newest_step, expected):
    assert num_without_progress(attempts(*first_steps), newest_step) == expected


@pytest.mark.parametrize("cause", STARTS_AGAIN)
def test_what_a_machine_did_starts_again_and_what_a_person_asked_for_does_not(cause: Cause):
    assert may_start_again("stopped", cause, attempts(0), 10).is_allowed == (cause in ("preempted", "time_limit", "node_failed"))


def test_progress_has_no_cap():
    decision = may_start_again("stopped", "preempted", attempts(*range(0, 1000, 10)), 1000)
    assert (decision.is_allowed, decision.reason) == (True, "cause preempted, going on from step 1000")


def test_third_attempt_without_progress_is_the_last():
    assert may_start_again("stopped", "time_limit", attempts(0, 10, 10), 10).is_allowed
    decision = may_start_again("stopped", "time_limit", attempts(0, 10, 10, 10), 10)
    assert (decision.is_allowed, decision.reason) == (False, "the last 3 attempts brought no new checkpoint (step 10)")


@pytest.mark.parametrize(("state", "is_allowed"), [("completed", False), ("failed", False), ("cancelled", False), ("lost", True)])
def test_failed_and_completed_runs_do_not_start_again_and_a_lost_node_does(state, is_allowed):
    assert may_start_again(state, None, attempts(0), 10).is_allowed == is_allowed


def test_stop_without_a_recorded_cause_is_for_a_person():
    assert not may_start_again("stopped", None, attempts(0), 10).is_allowed
