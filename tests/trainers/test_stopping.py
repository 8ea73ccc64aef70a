from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainers.stopping import CAUSES, StopRequests, agreed_cause


@pytest.fixture
def requests() -> Iterator[StopRequests]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)}
    requests = StopRequests()
    requests.listen()
    yield requests
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "cause"), [(signal.SIGTERM, "preempted"), (signal.SIGUSR2, "preempted"), (signal.SIGINT, "user")])
def test_a_signal_is_heard_as_its_cause(requests: StopRequests, number: signal.Signals, cause: str) -> None:
    assert agreed_cause(requests.flags()) is None
    os.kill(os.getpid(), number)
    assert agreed_cause(requests.flags()) == cause


def test_a_repeated_warning_counts_once_and_a_second_ctrl_c_interrupts(requests: StopRequests) -> None:
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
    assert sum(requests.flags()) == 1
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("text", "cause"), [("time_limit\n", "time_limit"), ("cancelled", "cancelled"), ("", "user"), ("whatever", "user")])
def test_the_stop_file_says_the_cause(requests: StopRequests, tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "stop").write_text(text)
    requests.watch(tmp_path / "stop")
    assert agreed_cause(requests.flags()) == cause


def test_one_rank_is_enough_and_what_a_person_asked_for_wins() -> None:
    flags = {cause: [float(cause == other) for other in CAUSES] for cause in CAUSES}
    together = [a + b for a, b in zip(flags["preempted"], flags["cancelled"], strict=True)]
    assert agreed_cause(together) == "cancelled"
    assert agreed_cause([2.0, 0.0, 0.0, 0.0]) == "preempted"
    assert agreed_cause([0.0] * len(CAUSES)) is None


def test_rank_of_a_launcher_that_is_killed_dies_with_it() -> None:
    rank = "import time; from trainers.stopping import die_with_parent; die_with_parent(); print('ready', flush=True); time.sleep(60)"
    launcher = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {rank!r}], start_new_session=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.communicate(timeout=30)[0] == ""  # the rank had the pipe open until it died
