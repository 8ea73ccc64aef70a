"""Every path inside a run directory, named once, and the ways its files are replaced."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launch.config.errors import Problem, StateError

State = Literal["pending", "running", "stopping", "stopped", "requeued", "completed", "failed", "cancelled", "lost"]
Cause = Literal["preempted", "time_limit", "user", "cancelled", "node_failed"]


@dataclass(frozen=True)
class Attempt:
    """Everything of one start of a run."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def accelerate(self) -> Path:
        return self.path / "accelerate.yaml"

    @property
    def deepspeed(self) -> Path:
        """DeepSpeed's configuration, under its engine alone."""
        return self.path / "deepspeed.json"

    @property
    def command(self) -> Path:
        return self.path / "command.sh"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def start(self) -> Path:
        """Written by rank 0 when it has everything: the step and the checkpoint that training goes on from, how a task of one's own is used."""
        return self.path / "start.json"

    @property
    def stop_file(self) -> Path:
        """While this file is there, every rank finishes its step, saves and leaves."""
        return self.path / "stop"

    @property
    def agreed_stop(self) -> Path:
        """Written by rank 0 of a script once should_stop() has told all ranks to stop; holds the cause."""
        return self.path / "agreed_stop"

    @property
    def job(self) -> Path:
        """Written when a Slurm job begins the attempt: its id, nodes and port."""
        return self.path / "job.json"

    @property
    def nodes(self) -> Path:
        """What the agent of each node of a Slurm job saw there, and how its ranks ended; written when they have."""
        return self.path / "nodes"

    def node_report(self, node: int) -> Path:
        return self.nodes / f"node_{node:05d}.json"

    def node_log(self, node: int) -> Path:
        """What the agent of a node says."""
        return self.path / f"node_{node:05d}.log"

    @property
    def failures(self) -> Path:
        return self.path / "failures"

    @property
    def failure(self) -> Path:
        """The first failure of the attempt, written by the agent."""
        return self.path / "failure.json"

    @property
    def ended(self) -> Path:
        """What status.json said when the attempt ended; it is not there if the attempt was killed."""
        return self.path / "ended.json"

    @property
    def job_log(self) -> Path:
        return self.path / "job.log"

    def was_begun(self) -> bool:
        """Returns whether there is more of it than what the launcher writes beforehand."""
        prepared = {path.name for path in (self.plan, self.accelerate, self.deepspeed, self.command, self.environment, self.failures)}
        return not {path.name for path in self.path.iterdir()} <= prepared or any(self.failures.glob("*"))

    def rank_log(self, rank: int) -> Path:
        return self.path / f"rank_{rank:05d}.log"

    def rank_failure(self, rank: int) -> Path:
        return self.failures / f"rank_{rank:05d}.json"


@dataclass(frozen=True)
class RunDir:
    """<run root>/<experiment>/<run id>/"""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def overrides(self) -> Path:
        return self.path / "overrides.txt"

    @property
    def resolved(self) -> Path:
        return self.path / "resolved.yaml"

    @property
    def lock(self) -> Path:
        """Held by the one process that trains here: the agent, or rank 0 under a stock launcher (launch.config.lock)."""
        return self.path / ".lock"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """What each evaluation counted beyond its metrics (confusion matrices), one JSON file a split."""
        return self.path / "evaluations"

    @property
    def wandb(self) -> Path:
        return self.path / "wandb"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def int8(self) -> Path:
        """The model in 8-bit integers, once `fullrank export` has made it."""
        return self.path / "int8"

    @property
    def report(self) -> Path:
        return self.path / "report.md"

    @property
    def report_page(self) -> Path:
        """The report as one HTML page that needs no other file."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """The pictures of report.md."""
        return self.path / "figures"

    @property
    def profile(self) -> Path:
        """Traces of --profile-steps, and where the steps' time went."""
        return self.path / "profile"

    @property
    def submit(self) -> Path:
        """The sbatch script of a run that Slurm starts."""
        return self.path / "submit.sbatch"

    @property
    def cluster(self) -> Path:
        """The cluster file of a run that Slurm starts, with what the command line replaced."""
        return self.path / "cluster.yaml"

    @property
    def cancelled(self) -> Path:
        """While this file is there, no job starts the run."""
        return self.path / "cancelled"

    @property
    def job_logs(self) -> Path:
        """One log for each Slurm job that carried this run: what its script says."""
        return self.path / "jobs"

    @property
    def job_ids(self) -> Path:
        """Ids of the Slurm jobs submitted for this run, one a line, the newest last; the tasks of an array have none."""
        return self.path / "job_ids.txt"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    def newest_checkpoint(self) -> Path | None:
        """Returns the newest checkpoint that was published and has its files in their sizes, or None; what they hold is not read."""
        return next((path for path in self.published_checkpoints()[::-1] if _has_its_files(path)), None)

    def published_checkpoints(self) -> list[Path]:
        """Returns the checkpoints that were published, oldest first; their files may have suffered since."""
        found = [path.parent for path in self.checkpoints.glob("checkpoint-*/manifest.json") if path.parent.name.rpartition("-")[2].isdecimal()]
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))

    def own_usage(self) -> list[str] | None:
        """Returns the lines that use the model of a task of one's own, as its file says; None: it says nothing, or it is no such task."""
        last = self.last_attempt()
        return (read_json(last.start) or {}).get("usage") if last else None

    def attempt(self, number: int) -> Attempt:
        return Attempt(self.attempts / f"{number:04d}")

    def last_attempt(self) -> Attempt | None:
        """Returns the newest attempt, or None if there was none."""
        return next(iter(self.attempts_backwards()), None)

    def attempts_backwards(self) -> list[Attempt]:
        """Returns all attempts, the newest first."""
        numbers = [int(p.name) for p in self.attempts.glob("[0-9]*") if p.name.isdigit() and p.is_dir()] if self.attempts.is_dir() else []
        return [self.attempt(number) for number in sorted(numbers, reverse=True)]


def _has_its_files(checkpoint: Path) -> bool:
    files = (read_json(checkpoint / "manifest.json") or {}).get("files")
    if not isinstance(files, dict):
        return False
    try:
        return all((checkpoint / name).stat().st_size == facts["size"] for name, facts in files.items())
    except (OSError, TypeError, LookupError):
        return False


def find_run(name: str, root: Path) -> RunDir:
    """Returns the run that a directory or an id under the run root names; `latest` is the newest.

    Raises:
        StateError: none or several match.
    """
    direct = Path(name).expanduser()
    if (direct / "status.json").is_file() or (direct / "resolved.yaml").is_file():
        return RunDir(direct.absolute())
    files = [f"{folders}/{file}" for folders in ("*/*", "*") for file in ("resolved.yaml", "status.json")]
    found = sorted({path.parent for file in files for path in root.glob(file)}, key=began)
    matches = found[-1:] if name == "latest" else [p for p in found if p.name == name or p.name.startswith(name)]
    if len(matches) == 1:
        return RunDir(matches[0].absolute())
    if matches:
        older = f"{len(matches) - _MOST_NAMED} older, " if len(matches) > _MOST_NAMED else ""
        named = ", ".join(str(p) for p in matches[-_MOST_NAMED:])
        raise StateError(Problem(f"{len(matches)} runs are called {name!r}", allowed=f"{older}{named}", fix="more of the run id, or its directory"))
    newest = ", ".join(p.name for p in found[-3:]) or "none"
    fix = "--run-root DIR where your runs are" + ("" if found else ", or start one: fullrank run quickstart")
    what = f"there is no run {name!r} (under {root})"
    raise StateError(Problem(what, allowed=f"a run directory, a run id, or latest; newest: {newest}", fix=fix))


def began(run: str | Path) -> str:
    """Returns what sorts run directories by their age: the time in a run id, or that of the first plan where a person chose the name."""
    name = os.path.basename(run)
    if _RUN_ID.match(name):
        return name
    for path in (os.path.join(run, "attempts", "0001", "plan.json"), run):
        with suppress(OSError):
            return time.strftime("%Y%m%d-%H%M%S", time.gmtime(os.stat(path).st_mtime)) + name
    return name


_RUN_ID = re.compile(r"\d{8}-\d{6}")
_MOST_NAMED = 8
"""Runs that an ambiguous name lists, the newest of them."""


def write_atomic(path: Path, text: str) -> None:
    """Replaces a file in one step: a reader sees the old text or the new one, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file, or None if it is not there or not whole."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replaces a JSON file in one step."""
    write_atomic(path, json.dumps(value, indent=2, default=str) + "\n")


def update_status(run: RunDir, **changes: Any) -> dict[str, Any]:
    """Sets keys of status.json, keeps the others, and returns all of them; `heartbeat` is the time of this call.

    With `ended` the attempt keeps a copy, for the attempts that come after have a status of their own.

    One writer at a time: the backend before and after the ranks, rank 0 in between.
    """
    status = (read_json(run.status) or {}) | changes | {"heartbeat": time.time()}
    write_json(run.status, status)
    if changes.get("ended") and isinstance(status.get("attempt"), int) and run.attempt(status["attempt"]).path.is_dir():
        write_json(run.attempt(status["attempt"]).ended, status)
    return status
