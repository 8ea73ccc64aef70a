from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.config.errors import ConfigError, StateError
from launch.config.lock import lock_run
from launch.config.new_run import create_attempt
from launch.config.run_dir import RunDir, update_status
from launch.config.status_file import read_status
from trainers.starting import open_run
from trainers.world import World

ENGINE: Any = SimpleNamespace(world=World(), from_main=lambda value: value)
EXPERIMENT: Any = SimpleNamespace(name="tiny")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.delenv("FULLRANK_ATTEMPT", raising=False)
    run = RunDir(tmp_path)
    run.resolved.write_text("", encoding="utf-8")
    return run


def test_training_started_by_hand_does_not_join_a_live_run(run: RunDir) -> None:
    with lock_run(run), pytest.raises(StateError, match="the run is alive"):
        open_run(ENGINE, EXPERIMENT, EXPERIMENT, run.path)
    assert not run.attempts.exists()


def test_training_started_by_hand_keeps_others_out(run: RunDir) -> None:
    open_run(ENGINE, EXPERIMENT, EXPERIMENT, run.path)
    with pytest.raises(StateError, match="the run is alive: pid "):
        lock_run(run)


def test_rank_of_an_agent_leaves_the_lock_to_the_agent(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_ATTEMPT", "3")
    with lock_run(run):
        assert open_run(ENGINE, EXPERIMENT, EXPERIMENT, run.path)[1].number == 3


@pytest.mark.parametrize(("number", "message"), [(None, None), ("2", "node a was lost")])
def test_what_an_earlier_attempt_ended_by_is_forgotten_by_the_next_but_for_what_its_agent_says(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, number: str | None, message: str | None
) -> None:
    if number:
        monkeypatch.setenv("FULLRANK_ATTEMPT", number)
    update_status(run, state="failed", message="node a was lost")
    open_run(ENGINE, EXPERIMENT, EXPERIMENT, run.path)
    assert read_status(run)["message"] == message


@pytest.mark.parametrize(("trace", "number"), [("plan.json", 1), ("start.json", 2), ("rank_00000.log", 2), ("failures/rank_00000.json", 2)])
def test_training_by_a_stock_launcher_begins_the_attempt_that_submit_planned_but_no_other(run: RunDir, trace: str, number: int) -> None:
    planned = create_attempt(run)
    for path in (planned.plan, planned.accelerate, planned.path / trace):
        path.write_text("{}", encoding="utf-8")
    assert open_run(ENGINE, EXPERIMENT, EXPERIMENT, run.path)[1].number == number


def test_start_that_was_killed_while_it_made_the_run_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FULLRANK_ATTEMPT", raising=False)
    monkeypatch.setattr("trainers.starting.dump_experiment", lambda experiment: {"name": experiment.name})
    monkeypatch.setattr("trainers.starting.copy_code", lambda experiment, path, target: None)
    begun = RunDir(tmp_path / "begun")
    begun.attempts.mkdir(parents=True)
    begun.experiment.write_text("half")
    loaded: Any = SimpleNamespace(text="name: tiny\n", overrides=(), path=tmp_path / "tiny.yaml")
    run, attempt = open_run(ENGINE, loaded, EXPERIMENT, begun.path)
    assert (run.experiment.read_text(), run.resolved.is_file(), attempt.number) == ("name: tiny\n", True, 1)


@pytest.mark.parametrize("stranger", ["notes.txt", "attempts/0001"])
def test_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, stranger: str) -> None:
    (tmp_path / stranger).mkdir(parents=True)
    with pytest.raises(ConfigError, match="the folder is not empty and not a run"):
        open_run(ENGINE, EXPERIMENT, EXPERIMENT, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [stranger.partition("/")[0]]
