from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launch.checks.machine import CHECKS, judge_machine
from launch.machine import Environment, Folder, Gpu, Surroundings
from launch.probe import Machine

H100 = Gpu("H100", 80.0, 9.0, "580.65.06")
V100 = Gpu("V100", 16.0, 7.0, "470.57.02")
ROOM = Folder(Path("/room"), is_writable=True, free_bytes=2**40, free_inodes=10**6)
SOUND = Surroundings(
    machine=Machine("node1", 8, 1, 16 * 2**30, None, "/env/bin/python", "3.11.7"),
    extras={"train": frozenset({"torch", "wandb"}), "deepspeed": frozenset({"deepspeed"}), "tensorboard": frozenset({"tensorboard"})},
    versions={"fullrank": "0.1.0", "torch": "2.15.0", "wandb": "0.31", "deepspeed": "0.19", "tensorboard": "2.19"},
    torch_cuda="13.0",
    gpus=(H100,),
    tools=frozenset({"g++", "ninja", "sinfo", "sbatch"}),
    folders={"cache": ROOM, "runs": ROOM, "shared memory": ROOM},
    is_wandb_logged_in=True,
    hub="https://hub.example",
    is_hub_reachable=True,
    slurm="slurm 22.05.8",
    environment=Environment({}, 8, has_gpus=True),
)


def wrong(**changes: object) -> list[tuple[str, str, str]]:
    return [(found.status, found.check, found.text) for found in judge_machine(replace(SOUND, **changes)) if found.status != "ok"]


def test_a_sound_machine_has_no_finding_but_every_check_says_what_it_saw():
    assert wrong() == []
    assert len(judge_machine(SOUND)) >= len(CHECKS)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"torch_cuda": None}, ("problem", "torch", "2.15.0, built for the CPU")),
        (
            {"gpus": (replace(H100, driver="550.54.15"),)},
            ("problem", "driver", "the driver 550.54.15 is too old for CUDA 13.0, which needs 580.65 or newer: torch would see no GPU"),
        ),
        ({"gpu_error": "Failed to initialize NVML"}, ("problem", "gpus", "nvidia-smi fails: Failed to initialize NVML")),
        ({"gpus": (replace(V100, driver="580.65"),)}, ("warning", "gpus", "older than Ampere: bf16 is emulated and slow")),
        ({"tools": frozenset({"g++"})}, ("warning", "compiler", "ninja not found: DeepSpeed cannot build its operators")),
        ({"tools": frozenset({"g++", "ninja", "sinfo"})}, ("warning", "slurm", "sinfo is here, but not both of sinfo and sbatch")),
        ({"slurm": None, "slurm_error": "no slurm.conf"}, ("warning", "slurm", "its commands do not work here: no slurm.conf")),
        ({"is_hub_reachable": False}, ("warning", "hub", "https://hub.example does not answer: only what its cache holds can be used")),
        ({"folders": {"cache": replace(ROOM, is_writable=False)}}, ("problem", "cache", "/room cannot be written to")),
        ({"folders": {"cache": replace(ROOM, free_bytes=2**20)}}, ("problem", "cache", "/room, 0.0 GiB free")),
        ({"folders": {"runs": replace(ROOM, free_bytes=2**30)}}, ("warning", "runs", "/room, 1.0 GiB free")),
        ({"folders": {"runs": replace(ROOM, free_inodes=5)}}, ("warning", "runs", "/room, 1024.0 GiB free, but room for 5 files only")),
        ({"folders": {"shared memory": replace(ROOM, free_bytes=2**26 - 1)}}, ("warning", "shared memory", "/room, 0.1 GiB free")),
    ],
)
def test_what_is_wrong_is_one_finding_with_its_way_out(changes, expected):
    assert wrong(**changes) == [expected]
    assert all(found.fix for found in judge_machine(replace(SOUND, **changes)) if found.status != "ok")


def test_a_plain_install_names_the_extra_that_training_needs():
    changes = {"versions": {"fullrank": "0.1.0"}, "torch_cuda": None}
    assert wrong(**changes) == [("warning", "extra train", "torch, wandb not installed: needed for run, resume, fetch and report on this machine")]
    fix = next(found.fix for found in judge_machine(replace(SOUND, **changes)) if found.check == "extra train")
    assert fix == "pip install '.[train]' in the folder of fullrank's sources"


def test_gpus_of_two_kinds_are_warned_of():
    assert ("warning", "gpus", "of different kinds: the slowest sets the pace") in wrong(gpus=(H100, replace(H100, name="A100")))
