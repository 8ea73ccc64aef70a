"""Sends what a run kept for W&B and the server does not have: `python -P -m trainers.tracking.wandb_sync RUN_DIR --state STATE`.

Offline parts go through `wandb sync`, one a call, in order, each as a copy of its whole records without the rows that the server has
(a torn part makes `wandb sync` stop, drop the parts behind it, and exit 0). Then a session asks the server what it has and sends the
rest from metrics.jsonl, until a session finds nothing missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.config.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_PREFLIGHT,
    EXIT_STOPPED,
    FullrankError,
    PreflightError,
    Problem,
    StateError,
    install_words,
)
from launch.config.metrics import Record
from launch.config.run_dir import RunDir, read_json, write_json
from trainers.tracking.wandb_files import copy_part, read_records, read_rows, run_files
from trainers.tracking.wandb_reach import has_login, is_offline, sent_parts, server_answers, server_url, unsent_parts
from trainers.tracking.wandb_run import ORDER, as_row, open_wandb_run, read_new_lines, tracker_id, uploading

MAX_SESSIONS = 3
SUCCESS, FAILURES = "Finished syncing", ("ERROR", "Failed", "Fatal", "Not authenticated")
"""What `wandb sync` says; its exit code is 0 either way (0.31)."""

GO_ON = "fullrank sync again, later: it goes on from there"


def main() -> int:
    """Prints {"rows", "sent", "parts"} to standard output, what is wrong to standard error, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="trainers.tracking.wandb_sync", description="Send a run to W&B.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--state", default="completed", help="how the run is doing, for the W&B run's own state")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds that one upload may take")
    options = parser.parse_args()
    try:
        sent = sync(RunDir(options.run_dir.absolute()), options.state, options.timeout)
    except FullrankError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed\n    try: {install_words('train')}", file=sys.stderr)
        return EXIT_PREFLIGHT
    print(json.dumps(sent))
    return EXIT_DONE


def sync(run: RunDir, state: str, timeout_s: float) -> dict[str, Any]:
    """Brings the W&B run up to the run directory, and returns how many rows it has and how many of them, and which parts, were sent now.

    Raises:
        StateError: W&B is off in this run, or another process uploads it.
        PreflightError: no login, or no server.
        FullrankError: the server did not take everything; a later call goes on from there.
    """
    order = read_json(run.wandb / ORDER)
    if order is None:
        what = "this run has kept nothing for W&B: tracking.wandb.mode was disabled, or it never trained"
        raise StateError(Problem(what, where=str(run.path), fix="tracking.wandb.mode=offline in the next run"))
    upload = Upload(run, order, state, timeout_s)
    if upload.is_done:
        return {"rows": upload.num_rows, "sent": 0, "parts": []}
    check_reachable()
    with uploading(run) as is_alone:
        if not is_alone:
            what = "another process uploads this run now: its own training, or another fullrank sync"
            raise StateError(Problem(what, where=str(run.path), fix=f"fullrank status {run.path}"))
        return upload.send()


def check_reachable() -> None:
    """Raises PreflightError if there is no W&B login here, or its server does not answer."""
    url = server_url(os.environ)
    if not has_login(url, os.environ):
        raise PreflightError(Problem(f"there is no W&B login for {url} on this machine", fix="wandb login, or WANDB_API_KEY in the environment"))
    if not server_answers(url):
        fix = "from a machine with a network (a login node), or another WANDB_BASE_URL"
        raise PreflightError(Problem(f"the W&B server {url} does not answer", fix=fix))


@dataclass
class Upload:
    """One pass over a run; what it has sent is noted in <run>/wandb/synced.json."""

    run: RunDir
    order: Mapping[str, Any]
    state: str
    timeout_s: float

    def __post_init__(self) -> None:
        self.lines: list[Record | None] = read_new_lines(self.run.metrics, 0)[0]
        self.num_rows = max((number for number, record in enumerate(self.lines, start=1) if record), default=0)
        self.parts = unsent_parts(self.run.wandb)
        if self.state == "running":
            self.parts = [part for part in self.parts if part != run_files(self.run.wandb)[-1]]  # it is being written
        self.noted = read_json(self.run.wandb / "synced.json") or {}

    @property
    def is_done(self) -> bool:
        """Whether all of it was sent before."""
        return not self.parts and (self.noted.get("rows"), self.noted.get("state")) == (self.num_rows, self.state)

    def send(self) -> dict[str, Any]:
        """Sends parts, then what is missing; see sync()."""
        known = self._known_rows()
        before, names = known, []
        with tempfile.TemporaryDirectory(prefix="fullrank-sync-") as folder:
            for part in self.parts:
                steps = [row["_step"] for row in read_rows(part)]
                if known is None or (steps and steps[0] > known):  # rows that an online attempt could not send come before
                    known = self._session(Path(folder), until=steps[0] if steps else 0)
                    before = known if before is None else before
                    known = max(known, steps[0] if steps else 0)
                if any(record.HasField("run") for record in read_records(part)):  # else a kill has left nothing of it
                    self._note(None)
                    send_part(copy_part(part, Path(folder), known), self.timeout_s)
                    names.append(part.parent.name)
                known = max(known, *(step + 1 for step in steps), 0)
                self._note(known, part)
            for _ in range(MAX_SESSIONS):
                self._note(None)
                found = self._session(Path(folder), until=self.num_rows)
                before = found if before is None else before
                if found >= self.num_rows:
                    self._note(self.num_rows)
                    return {"rows": self.num_rows, "sent": self.num_rows - before, "parts": names}
        what = f"the W&B server has {found} of {self.num_rows} rows after {MAX_SESSIONS} tries"
        raise FullrankError(Problem(what, where=str(self.run.path), fix=GO_ON))

    def _known_rows(self) -> int | None:
        """Returns how many rows the server has; None: only it can say, because a sync failed, or an online attempt sent nobody knows how many."""
        if not all(is_offline(part) for part in run_files(self.run.wandb)):
            return None
        rows = self.noted.get("rows") if self.noted else 0
        return rows if isinstance(rows, int) else None

    def _session(self, folder: Path, until: int) -> int:
        """Opens the W&B run, sends the rows it lacks before `until`, closes it, and returns how many it had."""
        import wandb

        try:
            wandb_run = open_wandb_run(self.run, self.order, "online", folder, finish_timeout=self.timeout_s, x_disable_stats=True)
            found = int(wandb_run.starting_step)
            for number, record in enumerate(self.lines[found:until], start=found):
                if record:
                    wandb_run.log(as_row(record), step=number)
            if self.state not in ("completed", "failed"):
                wandb_run.mark_preempting()
            wandb_run.finish(exit_code={"completed": EXIT_DONE, "failed": EXIT_FAILED}.get(self.state, EXIT_STOPPED))
        except Exception as error:  # whatever W&B raises
            with contextlib.suppress(Exception):
                wandb.teardown(exit_code=1)
            what = f"the W&B server does not take the run: {type(error).__name__}: {error}"
            raise FullrankError(Problem(what, where=str(self.run.path), fix=GO_ON)) from error
        return found

    def _note(self, rows: int | None, part: Path | None = None) -> None:
        """Writes down what the server has; rows None: from here on only it can say."""
        parts = sent_parts(self.run.wandb) | ({part.parent.name: part.stat().st_size} if part else {})
        write_json(self.run.wandb / "synced.json", {"rows": rows, "state": self.state, "id": tracker_id(self.run), "parts": parts})


def send_part(copy: Path, timeout_s: float) -> None:
    """Uploads one .wandb file with `wandb sync`.

    Raises:
        FullrankError: it says that it failed, or takes longer than `timeout_s`.
    """
    command = [sys.executable, "-P", "-m", "wandb", "sync", "--include-synced", str(copy.parent)]
    own = ("WANDB_SERVICE", "WANDB_SILENT")  # set by a session of this process: it must start its own service, and speak
    environment = {name: value for name, value in os.environ.items() if name not in own}
    try:
        ended = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s
        )
        said = ended.stdout
    except subprocess.TimeoutExpired:
        said = f"no end after {timeout_s:g} s"
    shutil.rmtree(copy.parent)
    if SUCCESS not in said or any(word in said for word in FAILURES):
        last = [line for line in said.splitlines() if line.strip()][-3:]
        raise FullrankError(Problem(f"wandb sync failed on {copy.parent.name}: {' '.join(last)}", fix=GO_ON))


if __name__ == "__main__":
    sys.exit(main())
