"""The real W&B client, offline: what its own files hold is what metrics.jsonl holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.config.experiment import Experiment, dump_experiment
from launch.config.metrics import NOT_METRICS, read_metrics
from launch.config.run_dir import RunDir
from trainers.trackers import Trackers, open_trackers
from trainers.tracking import wandb_process
from trainers.tracking.wandb_files import read_records, read_rows, run_files

pytestmark = pytest.mark.integration

EXPERIMENT = Experiment.model_validate(
    {
        "name": "tracked",
        "model": {"source": "m"},
        "task": {"kind": "text_classification", "text": "t", "label": "l"},
        "data": {"source": "d"},
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 0.1},
        "evaluate": {"metric": "accuracy", "mode": "max"},
        "tracking": {"wandb": {"mode": "offline", "project": "tests", "tags": ["a", "b"]}},
    }
)


@pytest.fixture(scope="module", autouse=True)
def patient_end() -> Iterator[None]:
    """The end of a training waits for W&B as long as a busy machine takes; how long it does in earnest is told where it is tested."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FINISH_S", "STOPPED_FINISH_S"):
            patch.setattr(wandb_process, name, 200.0)
        yield


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.resolved.write_text(yaml.safe_dump(dump_experiment(EXPERIMENT)))
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of 399 steps that has ended."""
    run = RunDir(tmp_path_factory.mktemp("whole"))
    run.resolved.write_text(yaml.safe_dump(dump_experiment(EXPERIMENT)))
    with open_trackers(run, EXPERIMENT, {"world_size": 2, "attempt": 1}) as opened:
        log_steps(opened, range(1, 400))
    return run


def test_every_logged_value_is_in_wandbs_file(whole: RunDir) -> None:
    run = whole
    (file,) = run_files(run.wandb)
    assert as_logged(read_rows(file)) == expected(run)
    assert len(expected(run)) == 399 + 39
    records = list(read_records(file))
    (started,) = [record.run for record in records if record.HasField("run")]
    assert (started.project, started.job_type, list(started.tags)) == ("tests", "train", ["a", "b"])
    assert started.run_id == (run.wandb / "run-id.txt").read_text()
    config = {item.key: item.value_json for item in started.config.update}
    facts = json.loads(config["fullrank"])
    assert (facts["world_size"], facts["attempt"], facts["run"]) == (2, 1, str(run.path))
    assert set(dump_experiment(EXPERIMENT)) < set(config)
    (ended,) = [record.exit for record in records if record.HasField("exit")]
    assert ended.exit_code == 0


def test_a_resumed_run_is_one_run_and_no_row_is_there_twice(run: RunDir) -> None:
    with open_trackers(run, EXPERIMENT, {"attempt": 1}) as opened:
        log_steps(opened, range(1, 21))
    with open_trackers(run, EXPERIMENT, {"attempt": 2}) as opened:
        log_steps(opened, range(16, 31))  # from a checkpoint of step 15
    parts = [read_rows(file) for file in run_files(run.wandb)]
    assert [len(part) for part in parts] == [22, 11]
    assert as_logged(parts[0] + parts[1]) == expected(run)
    names = {file.name for file in run_files(run.wandb)}
    assert names == {f"run-{(run.wandb / 'run-id.txt').read_text()}.wandb"}


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_every_process_lose_no_row(run: RunDir, stop_signal: signal.Signals) -> None:
    with open_trackers(run, EXPERIMENT, {}) as opened:
        log_steps(opened, range(1, 21))
        for pid in wait_for_service(opened):
            os.kill(pid, stop_signal)
        log_steps(opened, range(21, 41))
        opened.exit_code = 75
    rows = [row for file in run_files(run.wandb) for row in read_rows(file)]
    assert as_logged(rows) == expected(run)


def test_a_rank_that_is_killed_leaves_its_rows(run: RunDir) -> None:
    opened = open_trackers(run, EXPERIMENT, {})
    log_steps(opened, range(1, 21))
    process = follower(opened)
    assert process.stdin is not None
    process.stdin.close()  # as the kernel does
    process.wait(timeout=200)
    opened.close()
    (file,) = run_files(run.wandb)
    assert as_logged(read_rows(file)) == expected(run)
    assert [record.exit.exit_code for record in read_records(file) if record.HasField("exit")] == [1]


def test_a_torn_file_is_read_up_to_its_last_whole_record(whole: RunDir, tmp_path: Path) -> None:
    (file,) = run_files(whole.wandb)
    rows = read_rows(file)
    assert file.stat().st_size > 2 * 32768  # more than one block of the format
    torn = tmp_path / "torn.wandb"
    torn.write_bytes(file.read_bytes()[:40000])
    partial = read_rows(torn)
    assert 0 < len(partial) < len(rows)
    assert partial == rows[: len(partial)]


def log_steps(opened: Trackers, steps: range) -> None:
    for step in steps:
        opened.log({"step": step, "epoch": step / 10, "split": "train", "loss": 1 / step, "lr": 0.1 * step})
        if step % 10 == 0:
            opened.log({"step": step, "epoch": step / 10, "split": "validation", "loss": 2 / step, "accuracy": 1 - 1 / step})


def expected(run: RunDir) -> list[dict[str, Any]]:
    """Returns metrics.jsonl as W&B's rows should say it."""
    return [
        {"_step": number, "_timestamp": record["time"], **{key: record[key] for key in ("step", "epoch", "attempt") if key in record}}
        | {f"{record['split']}/{key}": value for key, value in record.items() if key not in NOT_METRICS}
        for number, record in enumerate(read_metrics(run.metrics))
    ]


def as_logged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "_runtime"} for row in rows]


def follower(opened: Trackers) -> subprocess.Popen[bytes]:
    return opened._others["W&B"]._process  # type: ignore[attr-defined,no-any-return]


def wait_for_service(opened: Trackers) -> list[int]:
    """Returns the pids of the follower and of the W&B service it has started."""
    pid = follower(opened).pid
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        service = [child for child in children if b"wandb-core" in (Path(f"/proc/{child}") / "cmdline").read_bytes()]
        if service:
            time.sleep(1.5)  # until rows have gone to it
            return [pid, *service]
        time.sleep(0.05)
    raise TimeoutError("W&B did not start its service")
