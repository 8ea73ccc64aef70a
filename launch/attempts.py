"""May a run be started again, and is it getting anywhere; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launch.config.run_dir import Cause, State

MAX_WITHOUT_PROGRESS = 3
"""Attempts in a row that may end without a new checkpoint. One that made progress starts the count again: progress has no cap."""

STARTS_AGAIN: dict[Cause, bool] = {
    "preempted": True,
    "time_limit": True,
    "node_failed": True,
    "user": False,
    "cancelled": False,
}
"""Whether a run that was stopped for this cause goes on by itself: what a machine did, yes; what a person asked for, no."""


@dataclass(frozen=True)
class Started:
    """One attempt of a run.

    Args:
        first_step: the step that it went on from; None: it ended before it had its data and model.
    """

    number: int
    first_step: int | None


@dataclass(frozen=True)
class Decision:
    """Whether something may happen, and the reason in words."""

    is_allowed: bool
    reason: str


def may_start_again(state: State, cause: Cause | None, attempts: Sequence[Started], newest_step: int) -> Decision:
    """Returns whether a run that has ended may be started again without a person.

    Args:
        attempts: all of them, in order, the one that has just ended last.
        newest_step: of the newest complete checkpoint; 0: there is none.
    """
    if state == "completed":
        return Decision(False, "it is completed")
    if state not in ("stopped", "requeued", "lost"):
        return Decision(False, f"it is {state}: the same would happen again")
    if state == "lost" and cause is None:
        cause = "node_failed"
    if cause is None or not STARTS_AGAIN[cause]:
        return Decision(False, f"it was stopped for the cause {cause}: that is for a person to decide")
    num_idle = num_without_progress(attempts, newest_step)
    if num_idle >= MAX_WITHOUT_PROGRESS:
        return Decision(False, f"the last {num_idle} attempts brought no new checkpoint (step {newest_step})")
    return Decision(True, f"cause {cause}, going on from step {newest_step}")


def num_without_progress(attempts: Sequence[Started], newest_step: int) -> int:
    """Returns how many of the newest attempts, in a row, brought no new checkpoint."""
    reached, count = newest_step, 0
    for attempt in reversed(attempts):
        if attempt.first_step is not None and reached > attempt.first_step:
            break
        count += 1
        reached = reached if attempt.first_step is None else attempt.first_step
    return count
