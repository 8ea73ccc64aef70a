"""Whether a run would go on with the data it was trained on, as far as that is known before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from launch.config.changes import PREPARED, Change, changed_data
from launch.config.errors import ConfigError, Problem
from launch.config.prepared import read_data_facts
from launch.config.run_dir import RunDir, read_json
from launch.plan_experiment import ExperimentPlan
from launch.probe import ExperimentProbe


def check_data(plan: ExperimentPlan, answers: ExperimentProbe, earlier: Sequence[Change], force: bool) -> list[Change]:
    """Returns the change of the run's data that a person forces, now or in an earlier attempt that left no checkpoint since.

    Data that has not been prepared in its present form is known by the count of its train split alone; the ranks, who prepare it,
    compare everything.

    Args:
        earlier: what was forced in earlier attempts.

    Raises:
        ConfigError: names what differs, as it was and as it would be.
    """
    before, now = _facts_of_checkpoint(plan.run), read_data_facts(plan.experiment)
    if not before:
        return []
    is_prepared = bool(now)
    if not is_prepared and answers.samples.num_samples is not None:
        now = {"num_samples": {"train": answers.samples.num_samples}}
    changes = list(changed_data(before, now))
    if not changes and (is_prepared or not force):
        return []
    if force:
        return [Change(PREPARED, before, now)]
    accepted = [change for change in earlier if change.key == PREPARED and now and not list(changed_data(change.now, now))]
    if accepted:
        return accepted
    raise ConfigError(
        *(
            Problem(
                f"was {change.before!r} in this run and would be {change.now!r}: the data has changed, going on would be another training",
                where=plan.experiment.data.source,
                key=change.key,
                fix="the data as it was; a new run for this data (fullrank run); or --force, which is recorded",
            )
            for change in changes
        )
    )


def _facts_of_checkpoint(run: RunDir) -> dict[str, Any]:
    """Returns what the newest checkpoint says of its data; empty if there is none, or it is of a fullrank that did not write it."""
    newest = run.newest_checkpoint()
    state = read_json(newest / "trainer_state.json") if newest else None
    return dict((state or {}).get("data") or {})
