from __future__ import annotations

import os

import pytest

from launch.config.errors import ConfigError
from launch.config.strategy import Strategy
from trainers.told import choose_strategy


def test_without_a_word_there_is_no_strategy() -> None:
    assert choose_strategy(None) is None


def test_the_strategy_that_accelerate_launch_put_into_the_environment_is_found_and_hidden_from_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    found = choose_strategy(None)
    assert found is not None
    assert found.engine == "fsdp2"
    assert "ACCELERATE_USE_FSDP" not in os.environ


@pytest.mark.parametrize(("engine", "told"), [("ddp", "ACCELERATE_USE_FSDP"), ("fsdp2", "ACCELERATE_USE_DEEPSPEED")])
def test_two_strategies_at_once_are_refused(engine: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(told, "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(ConfigError, match=f"{told}.*strategy mine is {engine}"):
        choose_strategy(Strategy("mine", engine, where="mine.yaml"))  # type: ignore[arg-type]
