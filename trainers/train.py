"""THE training script: one experiment file, any number of processes, under any launcher.

python -m trainers.train --config EXPERIMENT.yaml [--strategy FILE] [--run-dir DIR] [KEY=VALUE ...]
accelerate launch --config_file STRATEGY.yaml trainers/train.py --config EXPERIMENT.yaml [KEY=VALUE ...]
torchrun --nproc-per-node 2 trainers/train.py --config EXPERIMENT.yaml
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

if not __package__:  # started as a file: find the packages beside this folder, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from launch.config.errors import FullrankError
from launch.config.run_dir import Attempt, RunDir
from trainers.crash import CrashReport
from trainers.stopping import StopAgreed, StopRequests, die_with_parent


def main(arguments: list[str] | None = None) -> int:
    """Trains, and returns the exit code: 0 done, 1 failed, 2 bad input, 75 stopped on warning, 130 interrupted."""
    options = parse_arguments(arguments)
    if started_attempt():
        die_with_parent()  # of an agent's ranks none may stay
    stops, crash = StopRequests(), CrashReport(told_rank(), started_attempt())
    stops.listen()  # before the slow imports: a warning may come at any time
    try:
        return train(options, stops, crash)
    except BaseException as error:
        if options.debug and isinstance(error, FullrankError):
            traceback.print_exc()  # of a known error too; the others' is in the report
        code = crash.write(error)
        sys.stdout.flush()
        os._exit(code)  # not through exit handlers: they would wait for ranks that are stuck in a collective


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Returns config, strategy, run_dir and overrides."""
    parser = argparse.ArgumentParser(prog="trainers.train", description="Train one experiment; started once a process by a launcher.")
    parser.add_argument("--config", required=True, help="experiment: a YAML file, or the name of a shipped one")
    parser.add_argument("--strategy", help="Accelerate YAML file that says how the processes work together")
    parser.add_argument("--run-dir", type=Path, help="run directory; with checkpoints in it training goes on from the newest")
    parser.add_argument("--debug", action="store_true", help="find the operation behind a gradient that is not a number; all tracebacks")
    parser.add_argument("--overfit-batch", action="store_true", help="train on one batch until its loss is gone; exit code 1 if it is not")
    parser.add_argument("--profile-steps", metavar="FIRST:LAST", help="write a profiler trace of these optimizer steps")
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)  # what the deepspeed launcher adds
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that replace the experiment's")
    return parser.parse_intermixed_args(arguments)


def told_rank() -> int:
    """Returns RANK for reports; what is wrong with it is for read_world to say."""
    text = os.environ.get("RANK", "")
    return int(text) if text.isdecimal() else 0


def started_attempt() -> Attempt | None:
    """Returns the attempt that `fullrank run` started, so that even a failing import is reported there."""
    run_dir, number = os.environ.get("FULLRANK_RUN_DIR"), os.environ.get("FULLRANK_ATTEMPT")
    return RunDir(Path(run_dir)).attempt(int(number)) if run_dir and number else None


def train(options: argparse.Namespace, stops: StopRequests, crash: CrashReport) -> int:
    """Joins the other ranks, builds the training, runs it, and leaves. Every rank must call this."""
    from trainers.assembly import build_training, join
    from trainers.closing import close, close_early, exit_code
    from trainers.debugging import overfit, profile_steps, watch_gradients
    from trainers.loop import fit
    from trainers.starting import open_run

    joined = join(options.config, options.overrides, options.strategy, crash)
    run, attempt = open_run(joined.engine, joined.loaded, joined.experiment, options.run_dir)
    crash.attempt = attempt
    stops.watch(attempt.stop_file)
    try:
        training = build_training(joined, run, attempt, stops, crash)
    except StopAgreed as stop:
        return close_early(joined.engine, run, stops, stop)
    if options.debug:
        watch_gradients()
    if options.profile_steps:
        profile_steps(training, options.profile_steps)
    with training.trackers as trackers:
        cause = overfit(training) if options.overfit_batch else fit(training)
        trackers.exit_code = exit_code(cause)
    return close(training, cause, has_result=not options.overfit_batch)


def leave(code: int) -> NoReturn:
    """Ends this process once everything is written: threads and exit handlers as at any end, then no C++ destructors.

    gloo's threads outlive destroy_process_group() wherever DistributedDataParallel still holds the group; one that wants Python's lock while
    the interpreter goes away ends the process with SIGABRT, and with it a training that was done. multiprocessing leaves its children so too.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
