"""How long a save takes: measured by an earlier run, else estimated from its size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launch.config.run_dir import RunDir
from launch.config.strategy import load_strategy
from launch.memory import Memory
from launch.save_time import SaveTime, checkpoint_bytes, find_save_time

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
    plan = replace(plan, memory=replace(plan.memory, memory=Memory(400 * MB, 400 * MB, 800 * MB, 0, None)))
    assert checkpoint_bytes(plan) == 1200 * MB
    found = find_save_time(plan)
    assert found == SaveTime(6.0, False, "no save was measured yet; 1.1 GiB at 200 MB/s take 6 s")


@pytest.mark.parametrize(("strategy", "num_bytes"), [("ddp", 300 * MB), ("zero2", 500 * MB), ("zero3", 600 * MB), ("fsdp2", 600 * MB)])
def test_a_sharded_checkpoint_is_that_of_all_ranks(strategy, num_bytes, make_plan, make_probe):
    plan = make_plan(strategy=load_strategy(strategy), processes_per_node=2, probe=make_probe(num_gpus=2))
    memory = Memory(100 * MB, 100 * MB, 200 * MB, 0, None)
    assert checkpoint_bytes(replace(plan, memory=replace(plan.memory, memory=memory))) == num_bytes


def test_nothing_is_known_of_a_model_of_unknown_size(plan):
    assert find_save_time(replace(plan, memory=replace(plan.memory, memory=None))) is None
