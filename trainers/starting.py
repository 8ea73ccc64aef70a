"""Finds or makes the run directory and its attempt, the same on every rank."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import yaml

from launch.config.errors import ConfigError, FullrankError, Problem
from launch.config.experiment import Experiment, dump_experiment
from launch.config.load import LoadedExperiment
from launch.config.lock import lock_run
from launch.config.new_run import create_attempt, create_run_dir, writing
from launch.config.own_code import copy_code
from launch.config.run_dir import Attempt, RunDir, update_status, write_atomic
from trainers.engine import Engine


def open_run(engine: Engine, loaded: LoadedExperiment, experiment: Experiment, run_dir: Path | None) -> tuple[RunDir, Attempt]:
    """Returns the run and the attempt that rank 0 found or made. Every rank must call this.

    Under `fullrank run` both are there already; under a stock launcher rank 0 makes what is missing.

    Raises:
        ConfigError: the folder holds something that is not a run, or cannot be written.
        StateError: another process trains in it.
    """
    answer: tuple[str, int] | FullrankError | None = None
    if engine.world.is_main:
        try:
            with writing(RunDir(run_dir or _run_root())):
                run, attempt = _find_or_make(loaded, experiment, run_dir)
            answer = (str(run.path), attempt.number)
        except FullrankError as error:
            answer = error
    answer = engine.from_main(answer)
    if isinstance(answer, FullrankError):
        raise answer
    assert answer is not None
    run = RunDir(Path(answer[0]))
    return run, run.attempt(answer[1])


def _run_root() -> Path:
    return Path(os.environ.get("FULLRANK_RUN_ROOT", "runs"))


def _find_or_make(loaded: LoadedExperiment, experiment: Experiment, run_dir: Path | None) -> tuple[RunDir, Attempt]:
    run = RunDir(run_dir.expanduser().absolute()) if run_dir else None
    is_new = run is None or not run.resolved.is_file()
    if run is None or (is_new and not _was_begun(run)):
        run = create_run_dir(_run_root(), experiment.name, run_dir)
    number = os.environ.get("FULLRANK_ATTEMPT")
    if not number:  # else the agent holds it
        lock_run(run).beat_in_background()
    if is_new:
        run.attempts.mkdir(exist_ok=True)
        write_atomic(run.experiment, loaded.text)
        write_atomic(run.overrides, "".join(f"{override}\n" for override in loaded.overrides))
        copy_code(experiment, loaded.path, run.code)
        write_atomic(run.resolved, yaml.safe_dump(dump_experiment(experiment), sort_keys=False))  # last: with it, it is a run
    told_before = {} if number else {"message": None, "overfits_batch": False, "verdict": None}  # an agent has forgotten it already
    attempt = run.attempt(int(number)) if number else _prepared_attempt(run) or create_attempt(run)
    attempt.failures.mkdir(parents=True, exist_ok=True)
    update_status(
        run,
        experiment=experiment.name,
        state="running",
        cause=None,
        attempt=attempt.number,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=time.time(),
        **told_before,
    )
    return run, attempt


def _prepared_attempt(run: RunDir) -> Attempt | None:
    """Returns the attempt that `fullrank submit` has planned for the stock launcher, if nobody has begun it."""
    last = run.last_attempt()
    return last if last is not None and last.plan.is_file() and not last.was_begun() else None


def _was_begun(run: RunDir) -> bool:
    """Returns whether a start was killed while it made this run directory: nothing is lost, and it can be made again.

    Raises:
        ConfigError: it holds something else.
    """
    names = {path.name for path in run.path.iterdir() if not path.name.startswith(".")} if run.path.is_dir() else set()
    if names - {run.attempts.name, run.experiment.name, run.overrides.name} or (names and any(run.attempts.glob("*"))):
        raise ConfigError(Problem("the folder is not empty and not a run", where=str(run.path), fix="another --run-dir"))
    return bool(names) or run.lock.is_file()
