from __future__ import annotations

import re
from pathlib import Path

import pytest

from launch.failures import KINDS, Failure, classify, failure_of_exit, parse_failure, render_failure

REPORT = {
    "rank": 1,
    "host": "node1",
    "pid": 7,
    "time": 5.0,
    "step": 12,
    "phase": "training",
    "kind": "exception",
    "exception": "ValueError",
    "message": "label 9\nof 2",
    "traceback": "Traceback (most recent call last):\n  File x\nValueError: label 9\n",
}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out_of_memory"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", "out_of_memory"),
        ("OSError: [Errno 28] No space left on device", "disk_full"),
        ("RuntimeError: DataLoader worker (pid 5) is killed by signal: Bus error.", "shared_memory"),
        ("RuntimeError: DataLoader worker (pid(s) 5) exited unexpectedly", "data_worker"),
        ("ModuleNotFoundError: No module named 'torch'", "missing_package"),
        ("OSError: We couldn't connect to 'https://huggingface.co'", "hub"),
        ("DistNetworkError: The server socket failed: EADDRINUSE", "port_taken"),
        ("RuntimeError: The NVIDIA driver on your system is too old", "driver"),
        ("RuntimeError: CUDA error: device-side assert triggered", "device_assert"),
        ("DistBackendError: NCCL error in: x.cpp:1", "nccl"),
        ("RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1", "lost_contact"),
        ("terminate called without an active exception", "group_left_open"),
        ("FloatingPointError: loss is nan at step 3", "not_finite"),
        ("ValueError: something else", None),
    ],
)
def test_kind_is_told_by_the_words(text, kind):
    assert classify(text) == kind


def test_every_kind_says_what_to_do():
    assert all(kind.advice for kind in KINDS.values())


@pytest.mark.parametrize("last_line", ["terminate called without an active exception", "the work is done"])
def test_script_that_aborts_over_its_open_process_group_is_told_the_line_it_lacks(last_line):
    failure = failure_of_exit(0, "h", 1, 2.0, -6, ["the work is done", last_line], is_script=True)
    assert failure.message == "rank 0 was killed by SIGABRT"
    assert "torch.distributed.destroy_process_group() as " in failure.advice


def test_report_of_a_rank_keeps_its_facts_and_gains_kind_and_advice():
    failure = parse_failure(REPORT | {"exception": "OutOfMemoryError", "message": "CUDA out of memory"}, ("last",))
    assert (failure.rank, failure.step, failure.kind, failure.advice) == (1, 12, "out_of_memory", KINDS["out_of_memory"].advice)
    assert failure.last_lines == ("last",)


def test_failure_survives_its_own_file():
    failure = parse_failure(REPORT, ("a", "b"))
    assert parse_failure(failure.as_dict()) == failure


def test_silent_end_after_a_traceback_takes_its_exception():
    lines = [
        "Traceback (most recent call last):",
        '  File "train.py", line 1, in <module>',
        "    import torch",
        "ModuleNotFoundError: No module named 'torch'",
    ]
    failure = failure_of_exit(0, "h", 1, 2.0, 1, lines)
    assert (failure.kind, failure.exception, failure.message) == ("missing_package", "ModuleNotFoundError", "No module named 'torch'")


def test_launcher_killed_is_not_called_a_rank():
    assert failure_of_exit(None, "h", 1, 2.0, -11, []).message == "the launcher was killed by SIGSEGV"


def test_rendered_failure_is_whole():
    text = render_failure(parse_failure(REPORT), Path("/run/rank_00001.log"), others=1)
    assert text == (
        "failed: rank 1 on node1, after step 12: ValueError: label 9\n"
        "  | Traceback (most recent call last):\n"
        "  |   File x\n"
        "  | ValueError: label 9\n"
        "  1 other rank failed after it; their reports are in failures/\n"
        "  log: /run/rank_00001.log"
    )


def test_what_the_terminal_has_shown_is_not_shown_again():
    text = render_failure(parse_failure(REPORT), None, was_shown=True)
    assert text == "failed: rank 1 on node1, after step 12: ValueError: label 9"


def test_killed_rank_shows_its_last_lines_and_advice():
    failure = Failure(2, "node1", 7, 1.0, "killed", "rank 2 was killed by SIGKILL", advice="less memory", last_lines=("one", "two"))
    assert render_failure(failure, None).splitlines() == [
        "failed: rank 2 on node1: rank 2 was killed by SIGKILL",
        "  its last lines:",
        "  | one",
        "  | two",
        "  try: less memory",
    ]


def test_configuration_error_is_one_line_without_a_traceback():
    failure = parse_failure(REPORT | {"kind": "configuration", "message": "data.csv:3: no label"})
    assert render_failure(failure, None) == "error: data.csv:3: no label"


@pytest.mark.parametrize(
    ("lines", "code", "advice"),
    [
        (["  File x", "torch.OutOfMemoryError: CUDA out of memory"], 1, "a smaller batch in the script"),
        (["  File x", "ModuleNotFoundError: No module named 'einops'"], 1, "install it into the python of this run"),
        ([], -9, "fewer data workers, or a smaller batch in the script"),
        (["  File x", "RuntimeError: Address already in use"], 1, "start again: another port is tried"),
    ],
)
def test_advice_to_a_script_names_no_key_of_an_experiment(lines, code, advice):
    failure = failure_of_exit(0, "h", 1, 1.0, code, lines, is_script=True)
    assert advice in failure.advice
    assert not re.search(r"(train|data|model|optimizer)\.[a-z]", failure.advice)


def test_ranks_prefix_hides_no_traceback():
    lines = ["[rank1]: Traceback (most recent call last):", "[rank1]:   File x", "[rank1]: ValueError: it broke"]
    failure = failure_of_exit(1, "h", 1, 1.0, 1, lines)
    assert (failure.exception, failure.message) == ("ValueError", "it broke")
