"""What cannot be written, in processes of their own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.ranks import ROOT, clean_environment

FULLRANK = [sys.executable, "-c", "from launch.cli import main; main()"]


@pytest.mark.parametrize("words", [("--help",), ("status", "--help"), ("schema", "experiment"), ("plan", "mnist_cnn", "--json"), ("check",)])
def test_full_disk_is_one_line_and_exit_code_1(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*FULLRANK, *words], stdout=full, stderr=subprocess.PIPE, text=True, env=clean_environment())
    assert ended.returncode in ((1, 3) if words == ("check",) else (1,))  # what the verb found counts first
    assert ended.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("words", [("--help",), ("schema", "experiment")])
def test_closed_pipe_is_quiet(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*FULLRANK, *words], stdout=writer, stderr=subprocess.PIPE, text=True, env=clean_environment())
    os.close(writer)
    assert (ended.returncode, ended.stderr.strip()) == (1, "")


def test_closed_terminal_is_a_warned_stop_and_the_code_says_so(tmp_path: Path) -> None:
    script = "import signal, sys, time\nfrom pathlib import Path\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
    (tmp_path / "mine.py").write_text(script + "Path('ready').touch()\ntime.sleep(1000)\n")
    terminal, end = pty.openpty()
    started = subprocess.Popen(
        [*FULLRANK, "run", "--script", "mine.py", "--run-dir", "run"],
        cwd=tmp_path,
        env=clean_environment() | {"PYTHONPATH": str(ROOT)},
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(end)
    deadline = time.monotonic() + 200
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.close(terminal)
    assert started.wait(200) == 75
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["cause"]) == ("stopped", "preempted")
