"""Leaves a training: the final model and the report after its end, a word on how to go on after a stop."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback

from torch import Tensor

from launch.config.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_STOPPED
from launch.config.pipeline_dir import base_of_stage
from launch.config.run_dir import Cause, RunDir, update_status
from trainers.checkpoints.manifest import sorted_checkpoints
from trainers.engine import Engine
from trainers.loop import Training
from trainers.once import let_read
from trainers.stopping import StopAgreed, StopRequests


def close(training: Training, cause: Cause | None, has_result: bool = True) -> int:
    """Writes what a run leaves behind and returns the exit code. Every rank must call this.

    Args:
        has_result: whether the weights at the end are worth keeping.
    """
    run, progress = training.run, training.progress
    if cause is None and has_result:
        with training.average.applied():
            weights = training.engine.whole_weights(training.model)
            if training.engine.world.is_main:
                save_model(training, weights)
    if training.engine.world.is_main:
        if cause is None:
            update_status(run, state="completed", cause=None, step=progress.step, ended=time.time())
            _report(run, training)
            if "FULLRANK_ATTEMPT" not in os.environ:  # nobody else says so
                training.console.say("\n".join(f"{path.name.partition('.')[0]:<10}  {path}" for path in (run.model, run.report) if path.exists()))
        else:
            update_status(run, state="stopped", cause=cause, step=progress.step, ended=time.time())
            training.console.stop()
            training.console.say(f"stopped ({cause}) at step {progress.step}, {_what_is_saved(run, progress.step)}; {_go_on(run)}")
        training.stops.forget_stop_file()
    training.engine.barrier()  # nobody leaves while rank 0 is still writing
    training.engine.close()
    return exit_code(cause)


def close_early(engine: Engine, run: RunDir, stops: StopRequests, stop: StopAgreed) -> int:
    """Leaves before the first step, with nothing to save, and returns the exit code. Every rank must call this."""
    if engine.world.is_main:
        update_status(run, state="stopped", cause=stop.cause, ended=time.time())
        print(f"stopped ({stop.cause}) while {stop.during}, nothing to save; {_go_on(run)}", file=sys.stderr, flush=True)
        stops.forget_stop_file()
    engine.barrier()
    engine.close()
    return exit_code(stop.cause)


def exit_code(cause: Cause | None) -> int:
    """Returns what a training that ended or stopped for this cause exits with."""
    if cause is None:
        return EXIT_DONE
    return EXIT_INTERRUPTED if cause == "user" else EXIT_STOPPED


def save_model(training: Training, weights: dict[str, Tensor]) -> None:
    """Replaces <run>/model by the model with these weights, in its library's own format. Rank 0 only."""
    temporary = training.run.model.with_name(".model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    training.checkpoints.files.export(training.engine.exported(training.model), temporary, weights)
    let_read(temporary)
    shutil.rmtree(training.run.model, ignore_errors=True)
    temporary.rename(training.run.model)


def _what_is_saved(run: RunDir, step: int) -> str:
    """A stop does not hide that its checkpoint could not be written."""
    newest = sorted_checkpoints(run)[-1:]
    if newest and newest[0].name == f"checkpoint-{step}":
        return "saved"
    return f"NOT saved: training will go on from {newest[0].name if newest else 'the start'}"


def _go_on(run: RunDir) -> str:
    return f"go on with: fullrank resume {base_of_stage(run) or run.path}"


def _report(run: RunDir, training: Training) -> None:
    """Writes report.md; a picture that cannot be drawn must not fail a training that is done."""
    try:
        from trainers.reports.report import write_report  # imports matplotlib: only now that nothing waits for it

        write_report(run)
    except Exception:
        training.console.say(f"warning: the report could not be written; try again with: fullrank report {run.path}\n{traceback.format_exc()}")
