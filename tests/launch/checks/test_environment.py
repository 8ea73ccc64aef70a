from __future__ import annotations

import pytest

from launch.checks.environment import judge_environment
from launch.machine import Environment


def judged(**variables: str) -> list[tuple[str, str]]:
    found = judge_environment(Environment(variables, num_cores=4, has_gpus=True, interfaces=frozenset({"lo", "eth0"})))
    return [(finding.status, finding.text.split(": ")[0]) for finding in found]


def test_an_environment_without_a_bad_variable_is_fine():
    harmless = {"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "0", "NCCL_P2P_DISABLE": "0", "NCCL_SOCKET_IFNAME": "eth"}
    assert judged(**harmless, WANDB_API_KEY="secret", GLOO_SOCKET_IFNAME="^docker") == [("ok", "no variable that hurts")]


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("PYTHONDONTWRITEBYTECODE", "1", "warning"),
        ("NCCL_P2P_DISABLE", "1", "warning"),
        ("NCCL_DEBUG", "INFO", "warning"),
        ("TORCH_DISTRIBUTED_DEBUG", "DETAIL", "warning"),
        ("SLURM_CPU_BIND", "quiet,mask_cpu:0x1", "warning"),
        ("NCCL_SOCKET_IFNAME", "ib0", "problem"),
        ("GLOO_SOCKET_IFNAME", "=eth1,ib0", "problem"),
    ],
)
def test_a_variable_that_hurts_is_named_with_its_value(name, value, status):
    assert judged(**{name: value}) == [(status, f"{name}={value}")]


@pytest.mark.parametrize("value", ["0", "many", "-1", ""])
def test_threads_that_are_no_number(value):
    assert judged(OMP_NUM_THREADS=value) == [("warning", f"OMP_NUM_THREADS={value} is not a number of threads")]


def test_more_threads_than_cores():
    assert judged(OMP_NUM_THREADS="5") == [("warning", "OMP_NUM_THREADS=5, but there are 4 cores")]


@pytest.mark.parametrize("value", ["", "-1"])
def test_hidden_gpus(value):
    assert judged(CUDA_VISIBLE_DEVICES=value) == [("warning", f"CUDA_VISIBLE_DEVICES={value!r} hides every GPU")]


def test_what_another_launcher_left_is_one_finding():
    found = judge_environment(Environment({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1"}, 4))
    assert [finding.fix for finding in found] == ["unset RANK WORLD_SIZE MASTER_ADDR"]
    assert "10.0.0.1" not in found[0].text
