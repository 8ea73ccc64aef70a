"""Inside an allocation, on a login node, or neither; and what a submission from inside one must not take along."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from launch.scheduler.allocation import Allocation, is_login_node, read_allocation
from launch.scheduler.commands import clean_environment, own_defaults

INSIDE = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "16", "SLURM_GPUS_ON_NODE": "4"}


def test_an_allocation_says_its_nodes():
    assert read_allocation(INSIDE) == Allocation("7", nodes=2, cpus=16, gpus=4)
    assert read_allocation({}) is None


def test_one_task_of_several_is_no_shell():
    assert read_allocation(INSIDE | {"SLURM_NODEID": "1", "SLURM_STEP_NUM_TASKS": "2"}) is None


def test_submission_from_inside_leaves_the_allocation_behind():
    kept = {
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_CLUSTERS": "big",
        "SBATCH_ACCOUNT": "mine",
        "SBATCH_PARTITION": "gpu",
        "SBATCH_QOS": "high",
        "HOME": "/h",
    }
    dropped = {
        "SLURM_CPU_BIND": "quiet,mask_cpu:0x3",
        "SLURM_CPUS_PER_TASK": "2",
        "SBATCH_EXPORT": "NONE",
        "PMIX_RANK": "0",
        "SRUN_CPUS_PER_TASK": "2",
        "CUDA_VISIBLE_DEVICES": "0",
        "WORLD_SIZE": "8",
    }
    assert clean_environment(INSIDE | kept | dropped) == kept
    assert own_defaults(kept) == {"SBATCH_ACCOUNT": "mine", "SBATCH_PARTITION": "gpu", "SBATCH_QOS": "high"}


@pytest.mark.parametrize(("answer", "is_login"), [("echo node1; echo node2", True), ("hostname", False), ("exit 1", False), ("true", False)])
def test_a_login_node_is_a_machine_that_the_cluster_does_not_list(answer, is_login, tmp_path: Path, monkeypatch):
    sinfo = tmp_path / "sinfo"
    sinfo.write_text(f"#!/bin/sh\n{answer}\n")
    sinfo.chmod(sinfo.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert is_login_node({"SLURM_CONF": "/etc/slurm.conf"}) is is_login
    assert is_login_node(INSIDE | {"SLURM_CONF": "/etc/slurm.conf"}) is False
