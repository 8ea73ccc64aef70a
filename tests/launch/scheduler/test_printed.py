"""What Slurm's commands print, read: recorded answers of the test cluster (22.05), and forms that other sites and versions have."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.scheduler.commands import Site
from launch.scheduler.printed import (
    Accounted,
    Partition,
    Queued,
    expand_hosts,
    parse_gpus,
    parse_job_id,
    parse_records,
    parse_sacct,
    parse_settings,
    parse_sinfo,
    parse_squeue,
    parse_version,
)

RECORDED = Path(__file__).parents[1] / "slurm_22_05"


def test_partitions_of_a_real_cluster():
    partitions = parse_sinfo((RECORDED / "sinfo.txt").read_text())
    assert [one.name for one in partitions] == ["main", "graced", "cancelling", "short", "urgent"]
    assert partitions[0] == Partition("main", True, True, "1:00:00", 3, 2, 6000, {"": 2}, frozenset({"tiny"}))


def test_a_partition_of_two_kinds_of_nodes_is_one():
    (one,) = parse_sinfo("gpu|up|infinite|4|64|256000+|gpu:a100:8(S:0-1)|a100,ib\ngpu|up|infinite|2|32|128000|gpu:v100:4|v100\n")
    assert one == Partition("gpu", False, True, None, 6, 32, 128000, {"a100": 8, "v100": 4}, frozenset({"a100", "ib", "v100"}))


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:8", {"": 8}),
        ("gpu:h100:8(S:0-1)", {"h100": 8}),
        ("gpu:a100_3g.20gb:2,gpu:a100:4,nvme:1", {"a100_3g.20gb": 2, "a100": 4}),
        ("gpu", {"gpu": 1}),
        ("(null)", {}),
        ("shard:16", {}),
    ],
)
def test_gpus_of_a_node(gres, gpus):
    assert parse_gpus(gres) == gpus


def test_the_queue_has_array_tasks_and_reasons():
    text = "12|PENDING|Resources|2026-01-02T03:04:05|\n13_7|RUNNING|None|2026-01-01T00:00:00|node[1-2]\n14|PENDING|(BeginTime)|N/A|\n"
    assert parse_squeue(text) == {
        "12": Queued("12", "PENDING", "Resources", "2026-01-02T03:04:05", ""),
        "13_7": Queued("13_7", "RUNNING", "None", "2026-01-01T00:00:00", "node[1-2]"),
        "14": Queued("14", "PENDING", "BeginTime", "", ""),
    }


def test_accounting_tells_how_jobs_ended():
    jobs = parse_sacct(
        "1|COMPLETED|0:0|2026-01-01T00:00:00|node1|None\n2|CANCELLED by 0|0:15|Unknown|node2|None\n"
        "3|NODE_FAIL|1:0|x|node3|None\n4|RUNNING|0:0|Unknown|n|None\n"
    )
    assert {job: found.ended for job, found in jobs.items()} == {"1": "completed", "2": "cancelled", "3": "node_failed", "4": None}
    assert jobs["2"] == Accounted("2", "CANCELLED by 0", "0:15", "Unknown", "node2")


@pytest.mark.parametrize(
    ("answer", "job"),
    [
        ("123", "123"),
        ("123;cluster2\n", "123"),
        ("Submitted batch job 123\n", "123"),
        ("sbatch: lua: welcome\n77\n", "77"),
        ("Submitted batch job 5 on cluster big", "5"),
        ("sbatch: error", None),
    ],
)
def test_job_id_of_an_answer(answer, job):
    assert parse_job_id(answer) == job


@pytest.mark.parametrize(
    ("text", "version"), [("slurm-wlm 22.05.8", (22, 5)), ("slurm 20.11.9", (20, 11)), ("slurm 25.05.0-1", (25, 5)), ("what", None)]
)
def test_version(text, version):
    assert parse_version(text) == version


def recorded_site() -> Site:
    """Returns the test cluster as it described itself."""
    limits = {record["PartitionName"]: record for record in parse_records((RECORDED / "partitions.txt").read_text())}
    return Site(
        version=(22, 5),
        partitions=tuple(parse_sinfo((RECORDED / "sinfo.txt").read_text())),
        settings=parse_settings((RECORDED / "config.txt").read_text()),
        limits=limits,
        accounts={"research": frozenset({"normal"}), "teaching": frozenset({"normal"})},
    )


def test_a_partition_has_its_own_preemption():
    site = recorded_site()
    assert [site.preempt_mode(name) for name in (None, "main", "cancelling", "urgent")] == ["REQUEUE", "REQUEUE", "CANCEL", "OFF"]
    assert (site.grace_s("main"), site.grace_s("graced")) == (30, 60)


@pytest.mark.parametrize(
    ("node_list", "hosts"),
    [
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("node[01,07-09]", ["node01", "node07", "node08", "node09"]),
        ("gpu7,gpu9", ["gpu7", "gpu9"]),
        ("a", ["a"]),
        ("rack[2-3]n[4-5],x", ["rack2n4", "rack2n5", "rack3n4", "rack3n5", "x"]),
        ("gpu[098-101].local", ["gpu098.local", "gpu099.local", "gpu100.local", "gpu101.local"]),
        ("", []),
    ],
)
def test_the_hosts_of_a_list(node_list, hosts):
    assert expand_hosts(node_list) == hosts
