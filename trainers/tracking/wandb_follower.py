"""Sends metrics.jsonl to W&B, in a process of its own: `python -m trainers.tracking.wandb_follower`, started by trainers.tracking.wandb_process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any

from launch.config.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED
from launch.config.run_dir import RunDir
from trainers.tracking.wandb_files import read_rows, run_files
from trainers.tracking.wandb_reach import choose_mode
from trainers.tracking.wandb_run import as_row, open_wandb_run, read_new_lines, uploading

POLL_S = 1.0
FINISH_S = 25.0
MAX_STARTS = 3
"""The stop signals that Slurm sends to every process end W&B's service (it handles them whatever this process blocks): it is started again."""


def main() -> None:
    """Reads its order from standard input's first line, then follows until that is closed; the second line is training's exit code."""
    with open(0, "rb", buffering=0) as stdin, ExitStack() as held:  # unbuffered, so that select() sees what is left
        _follow(Follower(json.loads(stdin.readline()), stdin, held))


def _follow(follower: Follower) -> None:
    error: Exception | None = None
    for _ in range(MAX_STARTS):
        try:
            follower.follow()
            return
        except Exception as caught:
            error = caught
            follower.discard()
    follower.say_unsent(f"{type(error).__name__}: {error}; training goes on")


class Follower:
    """One W&B run that follows one metrics.jsonl."""

    def __init__(self, order: Mapping[str, Any], ending: FileIO, held: ExitStack) -> None:
        self.order = order
        self.ending = ending
        self.run = RunDir(Path(order["run_dir"]))
        self.mode = choose_mode(order["mode"], self.run.wandb, os.environ)
        self.exit_code: int | None = None
        if self.mode == "online" and not held.enter_context(uploading(self.run)):
            self.mode = "offline"
            _say("another process uploads this run (fullrank sync --watch): its rows go that way")
        elif self.mode == "offline":
            _say(f"W&B is offline; upload now or later with: fullrank sync {self.run.path}")

    def follow(self) -> None:
        """Starts W&B and sends every line it does not have yet, until training ends.

        Raises:
            Exception: whatever W&B raises, or RuntimeError if rows are missing in its file at the end.
        """
        wandb_run = open_wandb_run(self.run, self.order, self.mode, self.run.path, finish_timeout=FINISH_S, x_stats_pid=self.order["pid"])
        sent = wandb_run.starting_step if self.mode == "online" else _num_rows(self.run.wandb)
        self._keep_files(wandb_run)
        position = num_lines = num_rows = 0
        while True:
            closing = self._is_closing()
            records, position = read_new_lines(self.run.metrics, position)
            for record in records:
                if record and num_lines >= sent:
                    wandb_run.log(as_row(record), step=num_lines)
                num_lines += 1
                num_rows = num_lines if record else num_rows
            if closing:
                break
        if self.exit_code == EXIT_DONE:
            _show_pictures(self.run, wandb_run)
        if self.exit_code in (EXIT_STOPPED, EXIT_INTERRUPTED):
            wandb_run.mark_preempting()
        self._finish(wandb_run, num_rows)

    def discard(self) -> None:
        """Forgets a broken W&B service, so that the next start is a fresh one."""
        import wandb

        with contextlib.suppress(Exception):
            wandb.teardown(exit_code=1)
        if self.order["mode"] == "auto" and self.mode == "online":
            self.mode = "offline"
            _say(f"W&B goes on offline; upload later with: fullrank sync {self.run.path}")

    def say_unsent(self, why: str) -> None:
        _say(f"warning: W&B: {why}; every record is in {self.run.metrics}, and goes out with: fullrank sync {self.run.path}")

    def _finish(self, wandb_run: Any, num_rows: int) -> None:
        import wandb

        started = time.monotonic()
        wandb_run.finish(exit_code=self.exit_code)
        if self.mode == "online" and time.monotonic() - started >= FINISH_S:  # it has given up, and raises nothing
            self.say_unsent(f"the server did not take everything within {FINISH_S:g} s")
        wandb.teardown(exit_code=self.exit_code)  # finish() returns before the file is whole; this waits for the service to end
        written = _num_rows(self.run.wandb)
        if self.mode == "offline" and written < num_rows:
            raise RuntimeError(f"{num_rows - written} of {num_rows} rows did not reach its file")

    def _keep_files(self, wandb_run: Any) -> None:
        for path in self.order["files"]:
            with contextlib.suppress(OSError):  # a link that cannot be made
                wandb_run.save(path, base_path=str(self.run.path), policy="now")

    def _is_closing(self) -> bool:
        """Waits a moment; returns whether training has ended (or its process is gone, which counts as failed)."""
        if self.exit_code is None and select.select([self.ending], [], [], POLL_S)[0]:
            text = self.ending.readline()
            self.exit_code = int(text) if text.strip() else EXIT_FAILED
        return self.exit_code is not None


def _show_pictures(run: RunDir, wandb_run: Any) -> None:
    """Puts the report's pictures into the run's summary, so that no row is needed for them."""
    import wandb

    from trainers.reports.pictures import draw_pictures

    try:
        drawn = draw_pictures(run)
        shown = {path.stem: path for path in sorted(run.figures.glob("*.png"))}
        for name, path in (drawn | shown).items():
            wandb_run.summary[name] = wandb.Image(str(path))
    except Exception as error:  # the rows matter more
        _say(f"warning: W&B: the pictures are not in it: {type(error).__name__}: {error}")


def _num_rows(folder: Path) -> int:
    """Returns how many lines of metrics.jsonl W&B's files hold; they hold them in order."""
    steps = [row["_step"] for path in run_files(folder) for row in read_rows(path)]
    return max(steps, default=-1) + 1


def _say(line: str) -> None:
    over_the_bar = "\r\x1b[K" if os.environ.get("FULLRANK_TERMINAL_WIDTH") else ""
    print(over_the_bar + line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
