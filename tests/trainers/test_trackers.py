"""metrics.jsonl holds each step once, and no tracker's failure reaches the training."""

from __future__ import annotations

import json
import resource
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.metrics import read_metrics
from launch.config.run_dir import RunDir, write_json
from trainers import trackers
from trainers.trackers import SILENT, Trackers, open_trackers
from trainers.tracking.metrics_file import MetricsFile
from trainers.tracking.wandb_reach import choose_mode, is_wanted, server_url


def train_record(step: int, **values: Any) -> dict[str, Any]:
    return {"step": step, "epoch": step / 10, "split": "train", "loss": 1 / step, "time": 1700000000.0 + step, **values}


def test_a_record_is_one_line_that_other_processes_can_read_at_once(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    assert metrics.append(train_record(1))
    assert (tmp_path / "metrics.jsonl").read_text() == json.dumps(train_record(1)) + "\n"
    metrics.close()


def test_a_step_appears_once_a_split_also_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    accepted = [metrics.append(record) for record in (train_record(1), train_record(2), train_record(2), train_record(2) | {"split": "validation"})]
    metrics.close()
    again = MetricsFile(path)
    accepted += [again.append(record) for record in (train_record(1), train_record(2), train_record(3))]
    again.close()
    assert accepted == [True, True, False, True, False, False, True]
    assert [(record["step"], record["split"]) for record in read_metrics(path)] == [(1, "train"), (2, "train"), (2, "validation"), (3, "train")]


def test_a_line_torn_by_a_kill_is_dropped_said_once_and_its_step_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(train_record(1)) + "\n" + json.dumps(train_record(2))[:20])
    metrics = MetricsFile(path)
    assert capsys.readouterr().err == (
        f"warning: {path}:2: the last line was torn by a kill and is dropped; its step is recorded when it is trained again\n"
    )
    assert metrics.last_step == {"train": 1}
    assert metrics.append(train_record(2))
    metrics.close()
    MetricsFile(path).close()
    assert read_metrics(path) == [train_record(1), train_record(2)]
    assert capsys.readouterr().err == ""


def test_steps_trained_again_from_an_older_checkpoint_keep_their_first_record(tmp_path: Path) -> None:
    """W&B has it already, and a step that is trained again is the same step."""
    run = RunDir(tmp_path)
    for attempt, steps in ((1, range(1, 58)), (2, range(51, 71))):  # killed at 57, with a checkpoint of 50
        with open_trackers(run, experiment(), {"attempt": attempt}) as opened:
            for step in steps:
                opened.log(train_record(step))
    records = read_metrics(run.metrics)
    assert [record["step"] for record in records] == list(range(1, 71))
    assert [record["attempt"] for record in records] == [1] * 57 + [2] * 13


@pytest.mark.parametrize("damaged", [b'{"step": 2, "spl', b"\x00\xff", b"[1]", b"7", b"{}", b""])
def test_a_damaged_line_is_passed_over_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps(train_record(1)).encode() + b"\n" + damaged + b"\n" + json.dumps(train_record(3)).encode() + b"\n")
    assert read_metrics(path) == [train_record(1), train_record(3)]
    assert capsys.readouterr().err == f"warning: {path}:2: the line is damaged and passed over\n"
    metrics = MetricsFile(path)
    assert metrics.last_step == {"train": 3}
    metrics.close()


@contextmanager
def nearly_full_disk() -> Iterator[None]:
    """No file of this process can grow past 150 bytes; around single calls only, for pytest's own output may be a file too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_whole_lines_and_warns_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_warned", set())
    opened = Trackers(MetricsFile(tmp_path / "metrics.jsonl"), {})
    with nearly_full_disk():
        for step in (1, 2, 3):
            opened.log(train_record(step))
        opened.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [train_record(1)]
    assert (tmp_path / "metrics.jsonl").read_text().endswith("}\n")
    assert capsys.readouterr().err.count("warning: metrics.jsonl: OSError") == 1


class Broken:
    def log(self, record: Mapping[str, Any]) -> None:
        raise RuntimeError("the server is gone")

    def close(self, exit_code: int) -> None:
        raise RuntimeError("still gone")


class Listening:
    def __init__(self) -> None:
        self.records: list[Mapping[str, Any]] = []
        self.exit_code: int | None = None

    def log(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)

    def close(self, exit_code: int) -> None:
        self.exit_code = exit_code


def test_a_broken_tracker_warns_once_and_the_others_get_every_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "_warned", set())
    listening = Listening()
    with Trackers(MetricsFile(tmp_path / "metrics.jsonl"), {"first": Broken(), "second": listening}) as opened:
        opened.log(train_record(1))
        opened.log(train_record(1))
        opened.log(train_record(2))
        opened.exit_code = 75
    assert listening.records == [train_record(1), train_record(2)]
    assert listening.exit_code == 75
    assert capsys.readouterr().err == "warning: first: RuntimeError: the server is gone; training goes on\n"


def test_an_exception_closes_the_trackers_with_exit_code_1(tmp_path: Path) -> None:
    listening = Listening()
    with pytest.raises(ValueError, match="boom"), Trackers(MetricsFile(tmp_path / "metrics.jsonl"), {"one": listening}):
        raise ValueError("boom")
    assert listening.exit_code == 1


def test_a_record_without_a_time_gets_one_and_the_silent_trackers_keep_nothing(tmp_path: Path) -> None:
    with Trackers(MetricsFile(tmp_path / "metrics.jsonl"), {}) as opened:
        opened.log({"step": 1, "split": "train", "loss": 1.0})
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["time"] > 1.7e9
    with SILENT:
        SILENT.log({"step": 1, "split": "train", "loss": 1.0})


def test_tensorboard_charts_hold_every_metric(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDir(tmp_path)
    with open_trackers(run, experiment(tensorboard=True), {}) as opened:
        for step in (1, 2, 3):
            opened.log(train_record(step))
        opened.log({"step": 3, "epoch": 0.3, "split": "validation", "loss": 0.25, "accuracy": 0.75})
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["accuracy/validation", "loss/train", "loss/validation"]
    assert [(event.step, event.value, event.wall_time) for event in events.Scalars("loss/train")] == [
        (step, pytest.approx(1 / step), 1700000000.0 + step) for step in (1, 2, 3)
    ]


def test_a_resumed_run_is_one_in_tensorboard_with_each_step_once_and_what_a_kill_took_is_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDir(tmp_path)
    with open_trackers(run, experiment(tensorboard=True), {}) as opened:
        for step in range(1, 6):
            opened.log(train_record(step))
    (file,) = run.tensorboard.iterdir()
    file.write_bytes(file.read_bytes()[:-30])  # a kill takes the end
    with open_trackers(run, experiment(tensorboard=True), {}) as opened:
        for step in range(4, 9):
            opened.log(train_record(step))
    points = []
    for path in sorted(run.tensorboard.iterdir()):
        events = EventAccumulator(str(path))
        events.Reload()
        points += [(event.step, event.value) for event in events.Scalars("loss/train")]
    assert points == [(step, pytest.approx(1 / step)) for step in range(1, 9)]


def test_tensorboard_that_is_not_installed_is_named_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"tracking\.tensorboard: TensorBoard is not installed"):
        open_trackers(RunDir(tmp_path), experiment(tensorboard=True), {})


class TestMode:
    @pytest.fixture
    def server(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"

    @pytest.fixture(autouse=True)
    def no_proxy(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def test_auto_is_online_with_a_login_and_a_server_that_answers(self, tmp_path: Path, server: str) -> None:
        assert choose_mode("auto", tmp_path, {"WANDB_BASE_URL": server, "WANDB_API_KEY": "x"}) == "online"

    def test_auto_finds_a_login_in_netrc(self, tmp_path: Path, server: str) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password x\n")
        assert choose_mode("auto", tmp_path, {"WANDB_BASE_URL": server, "NETRC": str(tmp_path / "netrc")}) == "online"

    def test_auto_is_offline_without_a_login(self, tmp_path: Path, server: str) -> None:
        assert choose_mode("auto", tmp_path, {"WANDB_BASE_URL": server}) == "offline"

    def test_auto_is_offline_where_nobody_answers(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert choose_mode("auto", tmp_path, {"WANDB_BASE_URL": url, "WANDB_API_KEY": "x"}) == "offline"

    def test_auto_stays_offline_after_an_offline_part_so_that_parts_are_sent_in_order(self, tmp_path: Path, server: str) -> None:
        part = tmp_path / "offline-run-20260101_000000-x" / "run-x.wandb"
        part.parent.mkdir()
        part.touch()
        assert choose_mode("auto", tmp_path, {"WANDB_BASE_URL": server, "WANDB_API_KEY": "x"}) == "offline"

    def test_auto_is_online_again_after_the_offline_part_was_sent(self, tmp_path: Path, server: str) -> None:
        part = tmp_path / "offline-run-20260101_000000-x" / "run-x.wandb"
        part.parent.mkdir()
        part.write_bytes(b"12345")
        write_json(tmp_path / "synced.json", {"parts": {part.parent.name: 5}})
        assert choose_mode("auto", tmp_path, {"WANDB_BASE_URL": server, "WANDB_API_KEY": "x"}) == "online"
        part.write_bytes(b"123456")
        assert choose_mode("auto", tmp_path, {"WANDB_BASE_URL": server, "WANDB_API_KEY": "x"}) == "offline"

    @pytest.mark.parametrize("environ", [{"WANDB_MODE": "disabled"}, {"WANDB_DISABLED": "true"}])
    def test_wandbs_own_switch_turns_auto_off_and_nothing_else(self, environ: dict[str, str]) -> None:
        assert [is_wanted(mode, environ) for mode in ("auto", "online", "offline", "disabled")] == [False, True, True, False]
        assert is_wanted("auto", {})

    def test_the_server_is_that_of_the_variable_or_of_the_login(self, tmp_path: Path) -> None:
        (tmp_path / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
        assert server_url({"WANDB_CONFIG_DIR": str(tmp_path)}) == "https://wandb.example.org"
        assert server_url({"WANDB_CONFIG_DIR": str(tmp_path), "WANDB_BASE_URL": "http://localhost:1"}) == "http://localhost:1"
        assert server_url({"WANDB_CONFIG_DIR": str(tmp_path / "none")}) == "https://api.wandb.ai"

    def test_wandbs_own_variable_decides_auto_and_the_experiment_decides_the_rest(self, tmp_path: Path) -> None:
        assert choose_mode("auto", tmp_path, {"WANDB_MODE": "online"}) == "online"
        assert choose_mode("offline", tmp_path, {"WANDB_MODE": "online"}) == "offline"
        assert choose_mode("online", tmp_path, {"WANDB_MODE": "offline"}) == "online"


def experiment(**tracking: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "tracked",
            "model": {"source": "m"},
            "task": {"kind": "text_classification", "text": "t", "label": "l"},
            "data": {"source": "d"},
            "train": {"duration": "1 epoch", "global_batch_size": 8},
            "optimizer": {"lr": 0.1},
            "tracking": {"wandb": {"mode": "disabled"}, **tracking},
        }
    )
