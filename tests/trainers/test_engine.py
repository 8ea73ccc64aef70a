from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.strategy import Strategy, parse_strategy
from launch.config.yaml_files import Document
from trainers.engine import Engine
from trainers.hardware import choose_device, choose_precision
from trainers.world import World


def strategy(**values: object) -> Strategy:
    return parse_strategy(Document(values, Path("strategy.yaml")))


def test_a_variable_of_accelerate_does_not_divide_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert Engine(World(), None, "fp32").accelerator.gradient_accumulation_steps == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ACCELERATE_USE_MEGATRON_LM", "true", "no engine here"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "no engine here"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "told to compile"),
    ],
)
def test_what_accelerate_was_told_and_we_cannot_do_is_refused(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        Engine(World(), None, "fp32")


def test_a_strategy_for_other_processes_than_were_started_is_refused() -> None:
    told = strategy(distributed_type="MULTI_CPU", use_cpu=True, num_processes=2)
    with pytest.raises(ConfigError, match="is for 2 processes, and 1 were started"):
        Engine(World(), told, "fp32")


def test_one_process_needs_no_group_whatever_the_shell_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "1", "LOCAL_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert Engine(World(), None, "fp32").accelerator.num_processes == 1


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        Engine(World(), strategy(use_cpu=True), "fp16")


def test_a_strategy_for_gpus_does_not_fall_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no GPU it can use"):
        choose_device(Strategy("ddp", "ddp", use_cpu=False, where="ddp.yaml"))


def test_the_experiments_precision_wins_over_the_strategys_and_that_over_accelerates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    told = strategy(mixed_precision="no")
    assert (choose_precision("bf16", told), choose_precision(None, told), choose_precision(None, None)) == ("bf16", "fp32", "bf16")
