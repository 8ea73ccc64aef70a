"""Starts W&B in a process of its own, which a training neither waits for nor falls with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launch.config.errors import EXIT_DONE
from launch.config.experiment import Experiment
from launch.config.run_dir import RunDir, write_json
from trainers.tracking.wandb_run import ORDER, describe_wandb_run

FINISH_S = 30.0
"""How long the end of training waits for W&B; what is missing then is sent by `fullrank sync`."""

STOPPED_FINISH_S = 8.0
"""The same where a rank has failed, because the others are stuck until it leaves, and at a stop, because whoever warned will kill."""


class WandbProcess:
    """W&B in a process of its own (trainers.tracking.wandb_follower), which reads metrics.jsonl.

    So its start-up, its network and its crashes cannot hold training up, and no lock of its threads is copied into data workers.
    It runs in its own session with the stop signals blocked: a stop is the rank's to decide, and the records of the last step still go out.
    """

    def __init__(self, run: RunDir, experiment: Experiment, facts: Mapping[str, Any]) -> None:
        run.wandb.mkdir(exist_ok=True)
        self._run = run
        root = Path(__file__).resolve().parents[2]
        with _stop_signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trainers.tracking.wandb_follower"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "FULLRANK_OUTLIVES": "1", "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))},
                start_new_session=True,
            )
        order = describe_wandb_run(run, experiment, facts)
        write_json(run.wandb / ORDER, order)  # so that `fullrank sync` opens the same run
        self._send(json.dumps(order | {"run_dir": str(run.path), "pid": os.getpid()}, default=str))

    def log(self, record: Mapping[str, Any]) -> None:
        """Nothing to do: the process reads metrics.jsonl itself."""

    def close(self, exit_code: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it gave up, and has said so
            self._send(str(exit_code))
        patience_s = FINISH_S if exit_code == EXIT_DONE else STOPPED_FINISH_S
        try:
            self._process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            print(
                f"warning: W&B did not finish in {patience_s:g} s; what is missing there goes out with: fullrank sync {self._run.path}",
                file=sys.stderr,
            )

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """A process started inside inherits the block; this thread gets what was waiting afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
