"""The trainings of a verification as Slurm jobs: a drill of the warning, the save, the requeue and the going on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from launch.config.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from launch.config.run_dir import RunDir, State, read_json
from launch.runs import ALIVE, RunState, read_run
from launch.scheduler.commands import warn_job
from launch.verification import has_step, log_of, start

_LOOK_S = 0.1
_ASK_S = 10.0
"""Slurm is asked this often for a job that died without a word, or stays out of the queue; all else is read from the run directory."""

_SLURM_CODES: dict[State, int] = {"completed": EXIT_DONE, "stopped": EXIT_STOPPED}


@dataclass(frozen=True)
class SlurmTrainings:
    """`fullrank submit`; a job that was warned goes back into the queue and on by itself, or by `fullrank resume` where the site has it stay out.

    Args:
        words: what stands behind `fullrank submit`: experiment, overrides, options with the cluster.
        number: the signal of the warning before the time limit, which goes to the batch shell alone.
    """

    words: Sequence[str]
    number: signal.Signals = signal.SIGUSR2

    def train(self, run: RunDir) -> int:
        return self._submit(run) or self._end(run)

    def train_until(self, run: RunDir, step: int) -> int:
        if code := self._submit(run):
            return code
        with _cancelled_on_interrupt(run):
            state = _wait(run, lambda: has_step(run, step))
            if state.state not in ALIVE:
                return _told(run, state)
            warn_job(str(state.status["job_id"]), self.number)
            warned = state.status.get("attempt")
            state = _wait(run, lambda: _recorded(run) == "requeued" or (read_json(run.status) or {}).get("attempt") != warned)
        code = _told(run, state)
        return EXIT_STOPPED if state.state in ALIVE else code  # it may have begun again already

    def resume(self, run: RunDir) -> int:
        if _recorded(run) not in ALIVE and (code := start(run, "resume", str(run.path)).wait()):
            return code
        return self._end(run)

    def _submit(self, run: RunDir) -> int:
        return start(run, "submit", *self.words, "--run-dir", str(run.path)).wait()

    def _end(self, run: RunDir) -> int:
        with _cancelled_on_interrupt(run):
            return _told(run, _wait(run, lambda: False))


def _wait(run: RunDir, is_enough: Callable[[], bool]) -> RunState:
    """Returns the state of a run once that is enough, or once it has no job any more: by its own word, or by Slurm's, said twice.

    `stopped` is no last word: rank 0 writes it before the job puts itself back into the queue.
    """
    asked, num_gone = time.monotonic(), 0
    while not is_enough() and _recorded(run) in (*ALIVE, "stopped") and num_gone < 2:
        time.sleep(_LOOK_S)
        if time.monotonic() - asked > _ASK_S:
            asked, is_gone = time.monotonic(), read_run(run).state not in ALIVE
            num_gone = num_gone + 1 if is_gone else 0
    status = read_json(run.status) or {}
    return read_run(run) if num_gone else RunState(run, status["state"], status)


def _recorded(run: RunDir) -> str | None:
    return (read_json(run.status) or {}).get("state")


def _told(run: RunDir, state: RunState) -> int:
    """Writes how a job ended to the log beside its run, and returns the exit code that the same training would have had here."""
    with log_of(run).open("a", encoding="utf-8") as log:
        words = [text for text in (state.status.get("message"), state.note) if text]
        log.write(f"{state.state} at step {state.status.get('step')}{''.join(f'; {text}' for text in words)}; fullrank logs {run.path}\n")
    return _SLURM_CODES.get(state.state, EXIT_FAILED)


@contextmanager
def _cancelled_on_interrupt(run: RunDir) -> Iterator[None]:
    """Leaves no job behind when this process is interrupted."""
    try:
        yield
    except BaseException:
        start(run, "cancel", str(run.path), "--now").wait()
        raise
