from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainers.stopping import CAUSES, StopAgreed, StopChecks, StopRequests, agreed_cause, next_interval


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


def test_a_repeated_signal_counts_once(requests: StopRequests) -> None:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert [cause for cause, flag in zip(CAUSES, requests.flags(), strict=True) if flag] == ["preempted", "user"]


def test_a_later_ctrl_c_interrupts(requests: StopRequests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.stopping.ONE_PRESS_S", 0.0)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("text", "cause"), [("time_limit\n", "time_limit"), ("cancelled", "cancelled"), ("", "user"), ("whatever", "user"), ("\xff\xfe", "user")]
)
def test_the_stop_file_says_the_cause(requests: StopRequests, tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "stop").write_bytes(text.encode("latin-1"))
    requests.watch(tmp_path / "stop")
    assert agreed_cause(requests.flags()) == cause


def test_the_stop_file_names_the_cause_of_a_signal_at_once(requests: StopRequests, tmp_path: Path) -> None:
    requests.watch(tmp_path / "stop")
    requests.flags()
    (tmp_path / "stop").write_text("time_limit")
    os.kill(os.getpid(), signal.SIGUSR2)
    assert agreed_cause(requests.flags()) == "time_limit"
    requests.forget_stop_file()
    assert not (tmp_path / "stop").exists()


def test_a_request_is_agreed_on_by_raising_where_every_rank_is(requests: StopRequests) -> None:
    requests.leave_if_asked(list, "loading data")
    with pytest.raises(StopAgreed, match="preempted, while loading data"):
        requests.leave_if_asked(lambda flags: [flag + 1.0 * (place == 0) for place, flag in enumerate(flags)], "loading data")


@pytest.mark.parametrize(("batches", "seconds", "expected"), [(1, 0.1, 4), (4, 0.4, 10), (10, 5.0, 2), (1, 30.0, 1), (1, 0.0, 4)])
def test_ranks_are_asked_about_once_a_second(batches: int, seconds: float, expected: int) -> None:
    assert next_interval(batches, seconds) == expected


def test_all_ranks_ask_at_the_batches_that_rank_0_says(requests: StopRequests) -> None:
    asked: list[list[float]] = []

    def sums(values: list[float]) -> list[float]:
        asked.append(values)
        return [0.3, *values[1:]]  # what rank 0 measured

    checks = StopChecks(requests, sums, is_main=False, during="evaluating")
    for _ in range(1 + 3 + 10):
        checks.before_batch()
    assert [values[0] for values in asked] == [0.0, 0.0, 0.0]
    for _ in range(32):
        checks.before_batch()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopAgreed):
        checks.before_batch()


def test_one_rank_is_enough_and_what_a_person_asked_for_wins() -> None:
    flags = {cause: [float(cause == other) for other in CAUSES] for cause in CAUSES}
    together = [a + b for a, b in zip(flags["preempted"], flags["cancelled"], strict=True)]
    assert agreed_cause(together) == "cancelled"
    assert agreed_cause([2.0, 0.0, 0.0, 0.0]) == "preempted"
    assert agreed_cause([0.0] * len(CAUSES)) is None


def test_rank_of_a_launcher_that_is_killed_dies_with_it() -> None:
    rank = "import time; from trainers.stopping import die_with_parent; die_with_parent(); print('ready', flush=True); time.sleep(1000)"
    launcher = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {rank!r}], start_new_session=True); time.sleep(1000)"
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.communicate(timeout=200)[0] == ""  # the rank had the pipe open until it died
