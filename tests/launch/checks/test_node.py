"""A node that cannot do its part is refused before torch loads, with its name and the way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.checks import node as node_checks
from launch.checks.node import NodeFacts, check_lookup, check_node, clock_offset, differing, look_at_node, look_up, read_driver
from launch.config.errors import FullrankError, PreflightError

FACTS = NodeFacts(
    host="node2",
    python="/env/bin/python",
    python_version="3.11.7",
    versions={"torch": "2.15.0"},
    cores=(0, 1, 2, 3),
    num_gpus=2,
    clock_offset_s=0.0,
    driver="580.82.07",
    torch_cuda="13.0",
)
GPUS = {"processes_per_node": 2, "device": "cuda"}
CPU = {"processes_per_node": 2, "device": "cpu"}


def test_a_sound_node_passes():
    check_node(FACTS, GPUS, replace(FACTS, host="node1").as_dict())


@pytest.mark.parametrize(
    ("facts", "plan", "message"),
    [
        ({}, {}, "the run directory is not visible here"),
        ({"clock_offset_s": None}, CPU, "the run directory cannot be written"),
        ({"num_gpus": 1}, GPUS, "2 GPUs are needed on each node and 1 are visible"),
        ({"driver": "535.104.05"}, GPUS, "the driver 535.104.05 is too old for CUDA 13.0, which needs 580.65"),
        ({"cores": (3,)}, CPU, r"2 processes share 1 core \(affinity \[3\]\)"),
        ({"versions": {"torch": "2.9.0"}}, CPU, "torch differs: node1 2.15.0, node2 2.9.0"),
        ({"python_version": "3.12.1"}, CPU, "python differs: node1 3.11.7, node2 3.12.1"),
    ],
)
def test_an_unfit_node_is_refused(facts: dict[str, Any], plan: dict[str, Any], message: str):
    first = replace(FACTS, host="node1").as_dict()
    with pytest.raises(FullrankError, match=message) as caught:
        check_node(replace(FACTS, **facts), plan, first)
    assert [(problem.where, bool(problem.fix)) for problem in caught.value.problems] == [("node2", True)]


def test_an_old_driver_hurts_no_training_on_the_cpu():
    check_node(replace(FACTS, driver="450.1", num_gpus=0), CPU)


def test_a_package_that_is_not_there_differs_too():
    rows = [{"host": "a", "python_version": "3", "versions": {"wandb": "0.31"}}, {"host": "b", "python_version": "3", "versions": {}}]
    assert differing(rows) == ["wandb differs: a 0.31, b none"]


@pytest.mark.parametrize("words", ["NVIDIA UNIX x86_64 Kernel Module  580.82.07", "NVIDIA UNIX Open Kernel Module for x86_64  580.82.07"])
def test_the_driver_says_its_version(words: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(node_checks, "DRIVER_VERSION", tmp_path / "version")
    assert read_driver() is None
    (tmp_path / "version").write_text(f"NVRM version: {words}  Wed Aug 27 17:05:24 UTC 2025\nGCC version:  gcc version 12.2.0\n")
    assert read_driver() == "580.82.07"


def test_this_machine_is_looked_at(tmp_path: Path):
    facts = look_at_node(tmp_path)
    assert facts.cores
    assert abs(facts.clock_offset_s or 0.0) < 60
    assert clock_offset(tmp_path / "nothing") is None


def test_a_host_that_nobody_knows_is_refused():
    assert look_up("localhost") is not None
    assert look_up("no-such-node.invalid") is None
    with pytest.raises(PreflightError, match="the address of node1, the job's first node, cannot be looked up"):
        check_lookup("node2", "node1", None)


def test_a_slow_lookup_is_warned_of():
    assert check_lookup("node2", "node1", 0.1) is None
    assert "looking up node1 took 11 s on node2" in str(check_lookup("node2", "node1", 10.6))
