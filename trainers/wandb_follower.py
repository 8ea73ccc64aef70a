"""Sends metrics.jsonl to W&B, in a process of its own: `python -m trainers.wandb_follower`, started by trainers.trackers.

Line N of metrics.jsonl is row N of the W&B run (its `_step`), so what a resumed run, or a W&B service that was killed, has already is
known exactly, and no row is sent twice. The optimizer step is a metric of each row, and the x axis of every chart.
"""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import re
import secrets
import select
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from launch.config.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED
from launch.config.metrics import NOT_METRICS
from launch.config.run_dir import RunDir, write_atomic
from trainers.wandb_files import read_rows, run_files

Mode = Literal["online", "offline"]

POLL_S = 1.0
REACH_S = 2.0
"""How long a connection to the W&B server may take before the run is kept offline."""

FINISH_S = 25.0
MAX_STARTS = 3
"""The stop signals that Slurm sends to every process end W&B's service (it handles them whatever this process blocks): it is started again."""


def main() -> None:
    """Reads its order from standard input's first line, then follows until that is closed; the second line is training's exit code."""
    with open(0, "rb", buffering=0) as stdin:  # unbuffered, so that select() sees what is left
        _follow(Follower(json.loads(stdin.readline()), stdin))


def _follow(follower: Follower) -> None:
    error: Exception | None = None
    for _ in range(MAX_STARTS):
        try:
            follower.follow()
            return
        except Exception as caught:
            error = caught
            follower.discard()
    _say(f"warning: W&B: {type(error).__name__}: {error}; training goes on, every record is in {follower.run.metrics}")


class Follower:
    """One W&B run that follows one metrics.jsonl."""

    def __init__(self, order: Mapping[str, Any], ending: FileIO) -> None:
        self.order = order
        self.ending = ending
        self.run = RunDir(Path(order["run_dir"]))
        self.mode = choose_mode(order["mode"], self.run.wandb, os.environ)
        self.exit_code: int | None = None
        if self.mode == "offline":
            _say(f"W&B is offline; upload later with: wandb sync {self.run.wandb}/offline-run-*")

    def follow(self) -> None:
        """Starts W&B and sends every line it does not have yet, until training ends.

        Raises:
            Exception: whatever W&B raises, or RuntimeError if rows are missing in its file at the end.
        """
        os.environ.pop("WANDB_SERVICE", None)
        os.environ["WANDB_SILENT"] = "true"
        import wandb

        wandb_run = self._start()
        sent = wandb_run.starting_step if self.mode == "online" else _num_rows(self.run.wandb)
        position = 0
        num_lines = 0
        while True:
            closing = self._is_closing()
            records, position = _read_new(self.run.metrics, position)
            for record in records:
                if num_lines >= sent:
                    wandb_run.log(_row(record), step=num_lines)
                num_lines += 1
            if closing:
                break
        if self.exit_code in (EXIT_STOPPED, EXIT_INTERRUPTED):
            wandb_run.mark_preempting()
        wandb_run.finish(exit_code=self.exit_code)
        wandb.teardown(exit_code=self.exit_code)  # finish() returns before the file is whole; this waits for the service to end
        num_rows = _num_rows(self.run.wandb)
        if self.mode == "offline" and num_rows < num_lines:
            raise RuntimeError(f"{num_lines - num_rows} of {num_lines} rows did not reach its file")

    def discard(self) -> None:
        """Forgets a broken W&B service, so that the next start is a fresh one."""
        import wandb

        with contextlib.suppress(Exception):
            wandb.teardown(exit_code=1)
        if self.order["mode"] == "auto" and self.mode == "online":
            self.mode = "offline"
            _say(f"W&B goes on offline; upload later with: wandb sync {self.run.wandb}/offline-run-*")

    def _start(self) -> Any:
        import wandb

        order = self.order
        wandb_run = wandb.init(
            mode=self.mode,
            id=_tracker_id(self.run),
            name=f"{order['name']}-{self.run.run_id}",
            project=order["project"],
            entity=order["entity"],
            tags=order["tags"],
            config=order["config"],
            allow_val_change=True,
            job_type="train",
            dir=self.run.path,
            resume="allow" if self.mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off", finish_timeout=FINISH_S, x_stats_pid=order["pid"]),
        )
        wandb_run.define_metric("step", hidden=True)
        wandb_run.define_metric("*", step_metric="step")
        wandb_run.define_metric(order["best"]["metric"], step_metric="step", summary=f"{order['best']['mode']},last")
        return wandb_run

    def _is_closing(self) -> bool:
        """Waits a moment; returns whether training has ended (or its process is gone, which counts as failed)."""
        if self.exit_code is None and select.select([self.ending], [], [], POLL_S)[0]:
            text = self.ending.readline()
            self.exit_code = int(text) if text.strip() else EXIT_FAILED
        return self.exit_code is not None


def choose_mode(wanted: str, folder: Path, environ: Mapping[str, str]) -> Mode:
    """Returns where the rows go. `auto` is online if there is a login and the server answers, and the run has no offline part to be sent first."""
    if wanted != "auto":
        return "online" if wanted == "online" else "offline"
    asked = environ.get("WANDB_MODE")
    if asked in ("online", "offline"):
        return "online" if asked == "online" else "offline"
    has_offline_part = any(path.parent.name.startswith("offline-") for path in run_files(folder))
    url = environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    return "online" if not has_offline_part and _has_login(url, environ) and _answers(url) else "offline"


def _has_login(url: str, environ: Mapping[str, str]) -> bool:
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urllib.parse.urlsplit(url).hostname or ""
    for path in filter(None, (environ.get("NETRC"), "~/.netrc", "~/_netrc")):
        try:
            if host in netrc.netrc(os.path.expanduser(path)).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _answers(url: str) -> bool:
    """Returns whether the server, or the proxy on the way to it, takes a connection."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), timeout=REACH_S).close()
    except OSError:
        return False
    return True


def _tracker_id(run: RunDir) -> str:
    """Returns the id of the W&B run: made once, kept in the run directory, unique also where a person chose the directory's name."""
    path = run.wandb / "run-id.txt"
    if not path.is_file():
        name = re.sub(r"[^A-Za-z0-9_-]", "-", run.run_id)[:100]
        generated = re.fullmatch(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}", name)
        write_atomic(path, name if generated else f"{name}-{secrets.token_hex(3)}")
    return path.read_text(encoding="utf-8").strip()


def _num_rows(folder: Path) -> int:
    """Returns how many lines of metrics.jsonl W&B's files hold; they hold them in order."""
    steps = [row["_step"] for path in run_files(folder) for row in read_rows(path)]
    return max(steps, default=-1) + 1


def _read_new(path: Path, position: int) -> tuple[list[dict[str, Any]], int]:
    """Returns the whole lines after `position`, and where they end."""
    if not path.is_file():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        text = file.read()
    end = text.rfind(b"\n") + 1
    return [json.loads(line) for line in text[:end].splitlines()], position + end


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record as W&B names it: `train/loss`, with `step` and `epoch` beside it."""
    metrics = {f"{record['split']}/{key}": value for key, value in record.items() if key not in NOT_METRICS}
    return {"step": record["step"], "epoch": record.get("epoch"), "_timestamp": record["time"], **metrics}


def _say(line: str) -> None:
    over_the_bar = "\r\x1b[K" if os.environ.get("FULLRANK_TERMINAL_WIDTH") else ""
    print(over_the_bar + line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
