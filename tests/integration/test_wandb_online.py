"""The real W&B client against a server on loopback: one run, each step once, and an outage that training does not feel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.config.experiment import Experiment, dump_experiment
from launch.config.metrics import read_metrics
from launch.config.run_dir import RunDir, update_status, write_json
from tests.ranks import ROOT, clean_environment
from tests.wandb_server import ReceivedRun, WandbServer, serve
from trainers.trackers import Trackers, open_trackers
from trainers.tracking import wandb_process
from trainers.tracking.wandb_files import read_rows, run_files
from trainers.tracking.wandb_run import ORDER, as_row, describe_wandb_run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def patient_end() -> Iterator[None]:
    """The end of a training waits for W&B as long as a busy machine takes; how long it does in earnest is told where it is tested."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FINISH_S", "STOPPED_FINISH_S"):
            patch.setattr(wandb_process, name, 200.0)
        yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """The server, found by the processes that this test starts, and no login but its own."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "FULLRANK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with serve() as serving:
        for name, value in serving.environment().items():
            monkeypatch.setenv(name, value)
        yield serving


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.resolved.write_text(yaml.safe_dump(dump_experiment(experiment("auto"))))
    update_status(run, state="completed")
    return run


def test_an_online_run_that_is_killed_and_resumed_arrives_as_one_with_each_step_once(run: RunDir, server: WandbServer) -> None:
    kill_after(run, range(1, 26))
    with open_trackers(run, experiment("auto"), {"attempt": 2}) as opened:
        log_steps(opened, range(21, 41))  # from a checkpoint of step 20
    received = only(server)
    assert as_logged(received) == expected(run)
    assert [row["step"] for row in received.rows if "train/loss" in row] == list(range(1, 41))
    assert {row["attempt"] for row in received.rows} == {1, 2}
    assert (received.sent_again, received.exit_code) == ([], 0)
    assert received.config["fullrank"]["value"]["attempt"] == 2
    assert received.config["optimizer"]["value"]["lr"] == 0.1


def test_two_offline_parts_the_first_torn_arrive_as_one_run_and_a_second_sync_sends_nothing(run: RunDir, server: WandbServer) -> None:
    with open_trackers(run, experiment("offline"), {"attempt": 1}) as opened:
        log_steps(opened, range(1, 201))
    (part,) = run_files(run.wandb)
    part.write_bytes(part.read_bytes()[:20000])
    with open_trackers(run, experiment("offline"), {"attempt": 2}) as opened:
        log_steps(opened, range(191, 221))
    assert server.requests == []
    before = {file: file.read_bytes() for file in run_files(run.wandb)}
    assert len(before) == 2
    assert 0 < len(read_rows(part)) < 200
    ended = sync(run)
    assert (ended.returncode, ended.stdout) == (0, f"{len(expected(run))} rows sent, 2 offline parts; W&B has {len(expected(run))}\n"), ended.stderr
    received = only(server)
    assert as_logged(received) == expected(run)
    assert received.sent_again == []
    assert {file: file.read_bytes() for file in run_files(run.wandb)} == before
    num_requests = len(server.requests)
    assert sync(run).stdout == f"nothing new; W&B has {len(expected(run))} rows\n"
    assert len(server.requests) == num_requests


def test_sync_fills_what_a_killed_part_and_an_outage_left_out(run: RunDir, server: WandbServer) -> None:
    """Online until the server fails, then offline and killed: what neither sent comes from metrics.jsonl."""
    with open_trackers(run, experiment("online"), {"attempt": 1}) as opened:
        log_steps(opened, range(1, 21))
    kill_after(run, range(21, 31), mode="offline")
    update_status(run, state="failed")
    assert len(only(server).rows) == 22
    ended = sync(run, "--json")
    assert json.loads(ended.stdout) == {"run": str(run.path), "rows": 33, "sent": 11, "parts": []}, ended.stderr
    assert as_logged(only(server)) == expected(run)
    assert (only(server).sent_again, only(server).exit_code) == ([], 1)


def test_a_sync_that_fails_says_so_and_the_next_goes_on(run: RunDir, server: WandbServer) -> None:
    with open_trackers(run, experiment("offline"), {"attempt": 1}) as opened:
        log_steps(opened, range(1, 11))
    server.behaviour = "hangs"
    ended = sync(run, "--timeout", "2")
    assert ended.returncode == 1
    assert ended.stderr.count("error: ") == 1
    assert "try: fullrank sync again, later: it goes on from there" in ended.stderr
    assert "Traceback" not in ended.stderr
    server.behaviour = "answers"
    assert sync(run).returncode == 0
    assert as_logged(only(server)) == expected(run)


def test_watching_sends_while_the_run_lasts_and_ends_with_it(run: RunDir, server: WandbServer) -> None:
    update_status(run, state="running", host=os.uname().nodename, pid=os.getpid())
    opened = open_trackers(run, experiment("offline"), {"attempt": 1})
    log_steps(opened, range(1, 11))
    command = [sys.executable, "-P", "-m", "launch", "sync", str(run.path), "--watch", "--every", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "11 rows sent; W&B has 11\n"
        log_steps(opened, range(11, 21))
        opened.close()
        update_status(run, state="completed")
        assert watching.wait(timeout=200) == 0
    assert as_logged(only(server)) == expected(run)
    assert (only(server).sent_again, only(server).exit_code) == ([], 0)


@pytest.mark.parametrize("behaviour", ["fails", "hangs", "is slow"])
def test_an_outage_does_not_reach_the_training(
    run: RunDir, server: WandbServer, behaviour: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The calls that training makes do not wait for the server; its end waits for the deadline, no longer."""
    monkeypatch.setattr(wandb_process, "FINISH_S", 2.0)
    server.behaviour = behaviour
    with open_trackers(run, experiment("auto"), {"attempt": 1}) as opened:
        log_steps(opened, range(1, 41))
    assert len(read_metrics(run.metrics)) == 44
    err = capfd.readouterr().err
    assert "Traceback" not in err
    if behaviour != "is slow":
        assert f"fullrank sync {run.path}" in err


def test_a_server_that_refuses_leaves_an_offline_part(run: RunDir, server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # discard: nobody listens
    with open_trackers(run, experiment("auto"), {"attempt": 1}) as opened:
        log_steps(opened, range(1, 11))
    assert [part.parent.name.startswith("offline-") for part in run_files(run.wandb)] == [True]
    refused = sync(run)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (3, "error: the W&B server http://127.0.0.1:9 does not answer")


def test_a_server_that_dies_in_the_middle_is_said_and_sync_sends_the_rest(
    run: RunDir, server: WandbServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_process, "FINISH_S", 3.0)
    with open_trackers(run, experiment("auto"), {"attempt": 1}) as opened:
        log_steps(opened, range(1, 11))
        wait_for(lambda: "file_stream" in server.requests)
        server.behaviour = "fails"
        log_steps(opened, range(11, 21))
    assert f"warning: W&B did not finish in 3 s; what is missing there goes out with: fullrank sync {run.path}" in capfd.readouterr().err
    server.behaviour = "answers"
    ended = sync(run)
    assert ended.returncode == 0, ended.stderr
    assert as_logged(only(server)) == expected(run)
    assert only(server).sent_again == []


def test_without_a_login_there_is_one_clear_message(run: RunDir, server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    run.wandb.mkdir()
    write_json(run.wandb / ORDER, describe_wandb_run(run, experiment("offline"), {}))
    monkeypatch.delenv("WANDB_API_KEY")
    refused = sync(run)
    assert refused.returncode == 3
    assert refused.stderr == (
        f"error: there is no W&B login for {server.url} on this machine\n    try: wandb login, or WANDB_API_KEY in the environment\n"
    )


def test_a_run_without_wandb_is_refused(run: RunDir, server: WandbServer) -> None:
    refused = sync(run)
    assert refused.returncode == 2
    assert "this run has kept nothing for W&B" in refused.stderr


def kill_after(run: RunDir, steps: range, attempt: int = 1, mode: str = "auto") -> None:
    """Logs steps from a process that is then killed with its W&B processes, as a node that is lost."""
    script = (
        "import os, signal, sys, time\n"
        "from tests.integration.test_wandb_online import experiment, log_steps, run_files\n"
        "from launch.config.run_dir import RunDir\n"
        "from trainers.trackers import open_trackers\n"
        f"opened = open_trackers(RunDir(__import__('pathlib').Path({str(run.path)!r})), experiment({mode!r}), {{'attempt': {attempt}}})\n"
        f"log_steps(opened, range({steps.start}, {steps.stop}))\n"
        "time.sleep(2.5)\n"
        "os.killpg(opened._others['W&B']._process.pid, signal.SIGKILL)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=environment(), stderr=subprocess.PIPE, text=True, timeout=200)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def sync(run: RunDir, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "launch", "sync", str(run.path), *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)


def environment() -> dict[str, str]:
    wandb = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    return clean_environment() | wandb | {"PYTHONPATH": str(ROOT)}


def experiment(mode: str) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "tracked",
            "model": {"source": "m"},
            "task": {"kind": "text_classification", "text": "t", "label": "l"},
            "data": {"source": "d"},
            "train": {"duration": "1 epoch", "global_batch_size": 8},
            "optimizer": {"lr": 0.1},
            "evaluate": {"metric": "accuracy", "mode": "max"},
            "tracking": {"wandb": {"mode": mode, "project": "tests", "tags": ["a"]}},
        }
    )


def log_steps(opened: Trackers, steps: range) -> None:
    for step in steps:
        opened.log({"step": step, "epoch": step / 10, "split": "train", "loss": 1 / step, "lr": 0.1 * step})
        if step % 10 == 0:
            opened.log({"step": step, "epoch": step / 10, "split": "validation", "loss": 2 / step, "accuracy": 1 - 1 / step})


def expected(run: RunDir) -> list[dict[str, Any]]:
    return [{"_step": number, **as_row(record)} for number, record in enumerate(read_metrics(run.metrics))]


def as_logged(received: ReceivedRun) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "_runtime"} for row in received.rows]


def only(server: WandbServer) -> ReceivedRun:
    (received,) = server.runs.values()
    return received
