"""Keeps the records of a training: metrics.jsonl always, W&B and TensorBoard from it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from launch.config.errors import EXIT_DONE, EXIT_FAILED, ConfigError, FullrankError, Problem
from launch.config.experiment import Experiment, dump_experiment
from launch.config.run_dir import RunDir, write_atomic

NOT_METRICS = ("step", "epoch", "split", "time")
"""Keys of a record that say what it is about; every other key is a metric of its split."""

WANDB_FINISH_S = 30.0
"""How long the end of training waits for W&B; what is missing then can be sent with `wandb sync`."""

WANDB_FAILED_FINISH_S = 5.0
"""The same where a rank has failed: the others are stuck until it leaves."""

Record = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class Tracker(Protocol):
    """Takes records that metrics.jsonl has accepted."""

    def log(self, record: Record) -> None: ...

    def close(self, exit_code: int) -> None: ...


class Trackers:
    """All the places that a record goes to; what goes wrong in one warns once and never stops training.

    As a context manager it closes with exit code 1 if an exception passes through, else with `exit_code` (0 unless it was set).
    """

    def __init__(self, metrics: MetricsFile | None, others: Mapping[str, Tracker]) -> None:
        self.metrics = metrics
        self.exit_code = EXIT_DONE
        self._others = dict(others)
        self._closed = False

    def log(self, record: Record) -> None:
        """Writes a record with `step` and `split`; one that metrics.jsonl already has is dropped everywhere."""
        stamped = {"time": time.time(), **record}
        if self.metrics is None or not _guarded("metrics.jsonl", self.metrics.append, stamped):
            return
        for name, tracker in self._others.items():
            _guarded(name, tracker.log, stamped)

    def close(self, exit_code: int | None = None) -> None:
        """Ends every tracker; returns within WANDB_FINISH_S seconds. A second call does nothing."""
        if self._closed or self.metrics is None:
            return
        self._closed = True
        _guarded("metrics.jsonl", self.metrics.close)
        for name, tracker in self._others.items():
            _guarded(name, tracker.close, self.exit_code if exit_code is None else exit_code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failed = kind is not None and not issubclass(kind, SystemExit)
        self.close(EXIT_FAILED if failed else None)


SILENT = Trackers(None, {})
"""What every rank but the first has: takes records and keeps none."""


def open_trackers(run: RunDir, experiment: Experiment, facts: Mapping[str, Any]) -> Trackers:
    """Returns the open trackers of a run. Rank 0 only; starts W&B's process and does not wait for it.

    Args:
        facts: about this attempt (world size, attempt, git commit, ...), recorded beside the experiment.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
    """
    others: dict[str, Tracker] = {}
    if experiment.tracking.tensorboard:
        others["TensorBoard"] = TensorBoard(run.tensorboard)
    metrics = MetricsFile(run.metrics)
    if experiment.tracking.wandb.mode != "disabled":
        process = _guarded("W&B", WandbProcess, run, experiment, facts)
        if process:
            others["W&B"] = process
    return Trackers(metrics, others)


class MetricsFile:
    """metrics.jsonl: one JSON object a line, each (step, split) once, in the order of training.

    A line is on disk for other processes when `append` returns. A last line torn by a kill is dropped on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        records = _drop_torn_line(path)
        self.last_step: dict[str, int] = {}
        for record in records:
            self.last_step[record["split"]] = max(record["step"], self.last_step.get(record["split"], -1))
        self._file = path.open("ab", buffering=0)

    def append(self, record: Record) -> bool:
        """Writes the record unless the file has its step already; returns whether it was new."""
        if record["step"] <= self.last_step.get(record["split"], -1):
            return False
        line, start = json.dumps(record, default=float).encode() + b"\n", self._file.seek(0, os.SEEK_END)
        written = self._file.write(line)
        if written != len(line):
            self._file.truncate(start)  # a full disk must not leave half a line before the next whole one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self.last_step[record["split"]] = record["step"]
        return True

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the whole records of a metrics.jsonl; none if there is no file. A damaged line is passed over with a warning."""
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.is_file() else [], start=1):
        try:
            record = json.loads(line)
            record["split"], record["step"] + 0  # what every reader counts on
        except (ValueError, TypeError, LookupError):
            print(f"warning: {path}:{number}: the line is damaged and passed over", file=sys.stderr)
        else:
            records.append(record)
    return records


class TensorBoard:
    """TensorBoard files in <run>/tensorboard, one chart a metric with the splits side by side."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            problem = Problem(
                "TensorBoard is not installed", key="tracking.tensorboard", fix="pip install 'fullrank[tensorboard]', or tracking.tensorboard=false"
            )
            raise ConfigError(problem) from error
        self._writer = SummaryWriter(folder)

    def log(self, record: Record) -> None:
        for key, value in record.items():
            if key not in NOT_METRICS:
                self._writer.add_scalar(f"{key}/{record['split']}", value, record["step"], walltime=record["time"])

    def close(self, exit_code: int) -> None:
        self._writer.close()


class WandbProcess:
    """W&B in a process of its own (trainers.wandb_follower), which reads metrics.jsonl.

    So its start-up, its network and its crashes cannot hold training up, and no lock of its threads is copied into data workers.
    It runs in its own session with the stop signals blocked: a stop is the rank's to decide, and the records of the last step still go out.
    """

    def __init__(self, run: RunDir, experiment: Experiment, facts: Mapping[str, Any]) -> None:
        run.wandb.mkdir(exist_ok=True)
        self._folder = run.wandb
        root = Path(__file__).resolve().parent.parent
        with _stop_signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trainers.wandb_follower"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "FULLRANK_OUTLIVES": "1", "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))},
                start_new_session=True,
            )
        wandb = experiment.tracking.wandb
        order = {
            "run_dir": str(run.path),
            "name": experiment.name,
            "mode": wandb.mode,
            "project": wandb.project or "fullrank",
            "entity": wandb.entity,
            "tags": wandb.tags,
            "best": {"metric": f"validation/{experiment.evaluate.metric}", "mode": experiment.evaluate.mode},
            "config": {**dump_experiment(experiment), "fullrank": dict(facts)},
            "pid": os.getpid(),
        }
        self._send(json.dumps(order, default=str))

    def log(self, record: Record) -> None:
        """Nothing to do: the process reads metrics.jsonl itself."""

    def close(self, exit_code: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it gave up, and has said so
            self._send(str(exit_code))
        patience_s = WANDB_FAILED_FINISH_S if exit_code == EXIT_FAILED else WANDB_FINISH_S
        try:
            self._process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            print(f"warning: W&B did not finish in {patience_s:g} s; its files are in {self._folder}", file=sys.stderr)

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


def _drop_torn_line(path: Path) -> list[dict[str, Any]]:
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            write_atomic(path, whole)
    return read_metrics(path)


_warned: set[str] = set()


def _guarded(name: str, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Returns what the action returns, or None after saying (once a tracker) what went wrong."""
    try:
        return action(*args, **kwargs)
    except FullrankError:
        raise
    except Exception as error:
        if name not in _warned:
            _warned.add(name)
            print(f"warning: {name}: {type(error).__name__}: {error}; training goes on", file=sys.stderr)
        return None
