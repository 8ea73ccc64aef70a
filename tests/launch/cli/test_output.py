"""What cannot be written, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks import clean_environment

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
