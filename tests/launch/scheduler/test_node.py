"""The agent of one node: who its ranks are, and whether the other nodes have come."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError, PreflightError
from launch.config.lock import lock_run
from launch.config.new_run import create_attempt
from launch.config.run_dir import RunDir
from launch.scheduler import node

PLACE = {"SLURM_NODEID": "1", "SLURM_STEP_NUM_NODES": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "20001"}
JOINED = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "20000", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


def make_plan(nodes: int, processes: int, **environment: str) -> dict[str, object]:
    return {"nodes": nodes, "processes_per_node": processes, "environment": environment, "command": ["python", "-m", "trainers.train"]}


def test_the_ranks_of_the_second_node(tmp_path: Path):
    run = RunDir(tmp_path)
    found = node.members(make_plan(2, 2, **JOINED), node.read_place(PLACE), run, run.attempt(1))
    places = [{name: one.environment[name] for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")} for one in found]
    assert places == [
        {"RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "node1", "MASTER_PORT": "20001"},
        {"RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "20001"},
    ]
    assert [one.log.name for one in found] == ["rank_00002.log", "rank_00003.log"]


@pytest.mark.parametrize(("environment", "has_place"), [({}, False), (JOINED, True)], ids=["alone", "sharded"])
def test_one_rank_gets_a_place_only_where_its_engine_needs_a_group(environment, has_place, tmp_path: Path):
    run, alone = RunDir(tmp_path), node.Place(0, 1, "node1", "20001")
    (member,) = node.members(make_plan(1, 1, **environment), alone, run, run.attempt(1))
    assert ("RANK" in member.environment) == has_place
    assert (member.environment.get("MASTER_ADDR") == "node1") == has_place


def test_another_number_of_nodes_than_planned_is_refused(tmp_path: Path):
    run = RunDir(tmp_path)
    with pytest.raises(ConfigError, match="the job has 2 nodes and the plan 3"):
        node.members(make_plan(3, 1), node.read_place(PLACE), run, run.attempt(1))


def test_outside_a_job_the_agent_says_what_is_missing():
    with pytest.raises(ConfigError, match="SLURM_NODEID, MASTER_PORT not set"):
        node.read_place({name: value for name, value in PLACE.items() if name not in ("SLURM_NODEID", "MASTER_PORT")})


def test_a_node_that_does_not_come_is_named(tmp_path: Path, monkeypatch):
    """The others would wait half an hour for its ranks."""
    attempt = create_attempt(RunDir(tmp_path))
    for number in (0, 2):
        node.write_report(attempt, number, {"node": number})
    with lock_run(RunDir(tmp_path)) as lock:
        beat = node._beat_of_all(attempt, node.Place(0, 3, "node1", "20001"), lock)
        beat()
        monkeypatch.setattr(node, "START_PATIENCE_S", -1.0)
        with pytest.raises(PreflightError, match="node 1 of 3 of the job did not start"):
            beat()
        node.write_report(attempt, 1, {"node": 1})
        beat()
