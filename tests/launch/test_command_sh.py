"""command.sh, run by bash as a person would, over ranks that do what MODE says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launch.render import render_command

TRAIN = """
import os, signal, sys, time
rank, mode, folder = os.environ.get("RANK", "-"), os.environ["MODE"], os.environ["FOLDER"]
def leave(number, frame):
    sys.exit(130 if number == signal.SIGINT else 75)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, leave)
open(f"{folder}/{rank}", "w").write(" ".join([os.environ.get("WORLD_SIZE", "-"), os.environ.get("LOCAL_RANK", "-"), *sys.argv[1:]]))
if mode == "fail" and rank == "1":
    sys.exit(7)
if mode != "well":
    time.sleep(1000)
"""
RUN = "/runs/tiny/20260101-000000-abcdef"
ARGUMENTS = f"--config {RUN}/resolved.yaml --strategy {RUN}/attempts/0001/accelerate.yaml"


@pytest.fixture
def start(make_plan, tmp_path):
    """Returns a function that starts command.sh from another directory."""
    package = tmp_path / "packages" / "trainers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text(TRAIN)
    (tmp_path / "ranks").mkdir()

    def begin(mode: str, processes: int, *arguments: str) -> subprocess.Popen[bytes]:
        script = tmp_path / "command.sh"
        script.write_text(render_command(replace(make_plan(processes_per_node=processes), python=sys.executable)))
        environment = {**os.environ, "MODE": mode, "FOLDER": str(tmp_path / "ranks"), "PYTHONPATH": str(package.parent)}
        return subprocess.Popen(["bash", str(script), *arguments], cwd="/", env=environment, stderr=subprocess.PIPE)

    return begin


def ranks(tmp_path: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((tmp_path / "ranks").iterdir())}


def test_every_rank_is_started_with_its_number_and_the_arguments(start, tmp_path):
    assert start("well", 2, "seed=3", "name=a b").communicate()[0] is None
    assert ranks(tmp_path) == {"0": f"2 0 {ARGUMENTS} seed=3 name=a b", "1": f"2 1 {ARGUMENTS} seed=3 name=a b"}


def test_one_process_is_plain_python(start, tmp_path):
    started = start("well", 1)
    started.communicate()
    assert started.returncode == 0
    assert ranks(tmp_path) == {"-": f"- - {ARGUMENTS}"}


def test_failing_rank_ends_the_others_and_gives_the_exit_code(start):
    started = start("fail", 4)
    started.communicate(timeout=200)
    assert started.returncode == 7


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR2, 75)])
def test_stop_signal_reaches_every_rank(start, tmp_path, number, code):
    started = start("sleep", 2)
    while len(ranks(tmp_path)) < 2 or not all(ranks(tmp_path).values()):
        time.sleep(0.02)
    started.send_signal(number)
    started.communicate(timeout=200)
    assert started.returncode == code
