"""How long a save takes: measured by an earlier run, else estimated from its size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launch.config.run_dir import RunDir
from launch.config.strategy import load_strategy
from launch.sizes.model_size import ModelSize
from launch.sizes.save_time import SaveTime, checkpoint_bytes, find_save_time

MB = 10**6


@pytest.fixture
def plan(make_plan, tmp_path: Path):
    made = make_plan()
    return replace(made, run=RunDir(tmp_path / "tiny" / "new"))


def write_status(plan, name: str, **status) -> None:
    folder = plan.run.path.parent / name
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps(status))


def test_the_slowest_save_of_earlier_runs_counts(plan):
    write_status(plan, "a", checkpoint={"seconds": 3.25})
    write_status(plan, "b", checkpoint={"seconds": 41.0})
    write_status(plan, "c", state="failed")
    assert find_save_time(plan) == SaveTime(41.0, True, "a save took 41.0 s in b")


def test_a_first_run_is_estimated_by_the_size_of_its_checkpoint(plan):
    plan = replace(plan, memory=replace(plan.memory, size=sized(100 * MB, 100 * MB)))
    assert checkpoint_bytes(plan) == 1200 * MB
    found = find_save_time(plan)
    assert found == SaveTime(6.0, False, "no save was measured yet; 1.1 GiB at 200 MB/s take 6 s")


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3", "fsdp2"])
def test_a_checkpoint_is_as_large_under_every_strategy(strategy, make_plan, make_probe):
    probe = make_probe(num_gpus=2, size=sized(50 * MB, 25 * MB))
    plan = make_plan("train.precision=bf16", strategy=load_strategy(strategy), processes_per_node=2, probe=probe)
    assert checkpoint_bytes(plan) == (4 * 50 + 8 * 25) * MB


@pytest.mark.parametrize(
    ("override", "num_bytes"),
    [
        ("model.lora={rank: 4}", 3 * 4 * MB),
        ("train.ema_decay=0.9", (4 * 100 + 3 * 4) * MB),
        ("optimizer={name: sgd, lr: 0.1, momentum: 0}", 400 * MB),
    ],
)
def test_adapters_are_saved_alone_and_an_average_beside_the_weights(override, num_bytes, make_plan, make_probe):
    assert checkpoint_bytes(make_plan(override, probe=make_probe(size=sized(100 * MB, 1 * MB)))) == num_bytes


def test_nothing_is_known_of_a_model_of_unknown_size(plan):
    assert find_save_time(plan) is None


def sized(parameters: int, trained: int) -> ModelSize:
    return ModelSize(parameters, trained, 0, 0, None, "a test")
