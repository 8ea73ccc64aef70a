"""Rendered files against golden ones, compared whole; a missing golden file fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launch.config.deepspeed import DeepSpeedFacts, resolve_deepspeed
from launch.config.load import load_experiment
from launch.config.strategy import load_strategy, parse_strategy
from launch.config.yaml_files import load_yaml
from launch.render import launch_argv, launch_environment, rank_environment, render_files

GOLDEN = Path(__file__).parent / "golden"
RUN = "/runs/tiny/20260101-000000-abcdef"
TRAINING = ["--config", f"{RUN}/resolved.yaml", "--strategy", f"{RUN}/attempts/0001/accelerate.yaml", "--run-dir", RUN]
CASES = {
    "cpu_1": {},
    "cpu_2": {"processes_per_node": 2},
    "cpu_2_torchrun": {"processes_per_node": 2, "launcher": "torchrun"},
    "gpu_1": {"num_gpus": 1},
    "gpu_8": {"num_gpus": 8, "strategy": "ddp", "processes_per_node": 8},
    "fsdp2_8": {"num_gpus": 8, "strategy": "fsdp2", "processes_per_node": 8},
    "fsdp2_cpu_2": {"strategy": "fsdp2", "processes_per_node": 2, "precision": "fp32"},
    "zero2_8": {"num_gpus": 8, "strategy": "zero2", "processes_per_node": 8},
    "zero3_offload_1": {"num_gpus": 1, "strategy": "zero3_offload", "launcher": "accelerate"},
}


def rendered(case, make_plan, make_probe):
    options = dict(CASES[case])
    probe = make_probe(num_gpus=options.pop("num_gpus", 0))
    strategy = load_strategy(options.pop("strategy", "auto"))
    precision = [f"train.precision={options.pop('precision')}"] if "precision" in options else []
    return render_files(make_plan("optimizer.lr=3e-5", *precision, strategy=strategy, probe=probe, **options), probe)


@pytest.mark.parametrize("case", CASES)
def test_files_are_the_golden_ones(case, make_plan, make_probe):
    files = rendered(case, make_plan, make_probe)
    ours = {name: text.replace(str(Path(__file__).parents[2]), "/checkout") for name, text in files.items()}
    if os.environ.get("FULLRANK_ACCEPT_GOLDEN"):
        write_golden(case, ours)
    golden = {str(path.relative_to(GOLDEN / case)): path.read_text() for path in sorted((GOLDEN / case).rglob("*")) if path.is_file()}
    assert ours == golden


def write_golden(case, files):
    shutil.rmtree(GOLDEN / case, ignore_errors=True)
    for name, text in files.items():
        path = GOLDEN / case / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("case", CASES)
def test_command_sh_is_valid_bash(case, make_plan, make_probe, tmp_path):
    script = tmp_path / "command.sh"
    script.write_text(rendered(case, make_plan, make_probe)["attempts/0001/command.sh"])
    subprocess.run(["bash", "-n", str(script)], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([shellcheck, str(script)], check=True)


def test_direct_argv_is_one_rank(make_plan):
    assert launch_argv(make_plan(processes_per_node=2)) == ["/env/bin/python", "-P", "-m", "trainers.train", *TRAINING]


def test_stock_launchers_argv(make_plan):
    argv = {launcher: launch_argv(make_plan(processes_per_node=2, launcher=launcher)) for launcher in ("accelerate", "torchrun", "deepspeed")}
    python, module = ["/env/bin/python", "-P", "-m"], ["-m", "trainers.train", *TRAINING]
    assert argv == {
        "accelerate": [*python, "accelerate.commands.launch", "--config_file", f"{RUN}/attempts/0001/accelerate.yaml", *module],
        "torchrun": [
            *python,
            "torch.distributed.run",
            "--nnodes",
            "1",
            "--nproc-per-node",
            "2",
            "--master-addr",
            "127.0.0.1",
            "--master-port",
            "22108",
            *module,
        ],
        "deepspeed": [
            *python,
            "deepspeed.launcher.runner",
            "--num_gpus",
            "2",
            "--master_port",
            "22108",
            "--no_local_rank",
            "--module",
            "trainers.train",
            *TRAINING,
        ],
    }


def test_rank_environment_is_torchruns(make_plan):
    assert rank_environment(make_plan(processes_per_node=2), 1) == {
        "OMP_NUM_THREADS": "4",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "22108",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
    }


def test_one_process_meets_nobody(make_plan):
    assert rank_environment(make_plan(), 0) == {"OMP_NUM_THREADS": "8"}


def test_deepspeed_on_a_cpu_is_told_so(make_plan):
    environment = launch_environment(make_plan(processes_per_node=2, launcher="deepspeed"))
    assert environment == {"OMP_NUM_THREADS": "4", "PYTHONSAFEPATH": "1", "DS_ACCELERATOR": "cpu"}


def test_resolved_yaml_loads_back_to_the_same_experiment(make_plan, make_probe, tmp_path):
    plan = make_plan("optimizer.lr=3e-5", "train.duration=7 steps")
    path = tmp_path / "resolved.yaml"
    path.write_text(render_files(plan, make_probe())["resolved.yaml"])
    assert load_experiment(str(path)).experiment == plan.experiment


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2_offload", "zero1", "zero2", "zero3", "zero3_offload"])
def test_a_sharding_strategy_reads_back_from_its_attempt(name, make_plan, make_probe, tmp_path):
    probe, strategy = make_probe(num_gpus=2), load_strategy(name)
    plan = make_plan(strategy=strategy, probe=probe, processes_per_node=2)
    files = render_files(plan, probe)
    for file in ("accelerate.yaml", "deepspeed.json"):
        text = files.get(f"attempts/0001/{file}")
        if text is not None:
            (tmp_path / file).write_text(text.replace(str(plan.attempt.path), str(tmp_path)))
    found = load_strategy(str(tmp_path / "accelerate.yaml"))
    assert (found.engine, found.fsdp, found.processes_per_node, found.precision) == (strategy.engine, strategy.fsdp, 2, "bf16")
    if strategy.deepspeed:
        assert found.deepspeed.config == plan.deepspeed
        assert resolve_deepspeed(found.deepspeed, DeepSpeedFacts(plan.experiment, plan.batches, "bf16")) == plan.deepspeed


def test_one_process_that_shards_joins_a_group_of_its_own(make_plan, make_probe):
    plan = make_plan(strategy=load_strategy("zero3_offload"), probe=make_probe())
    assert rank_environment(plan, 0) == {
        "OMP_NUM_THREADS": "8",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "22108",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "DS_ACCELERATOR": "cpu",
    }


@pytest.mark.parametrize(
    ("case", "use_cpu", "processes"),
    [("fsdp2_8", False, 8), ("fsdp2_cpu_2", True, 2), ("cpu_1", True, 1), ("cpu_2", True, 2), ("gpu_1", False, 1), ("gpu_8", False, 8)],
)
def test_accelerate_yaml_says_the_same_when_read_back(case, use_cpu, processes, make_plan, make_probe, tmp_path):
    path = tmp_path / "accelerate.yaml"
    path.write_text(rendered(case, make_plan, make_probe)["attempts/0001/accelerate.yaml"])
    strategy = parse_strategy(load_yaml(path))
    assert (strategy.use_cpu, strategy.processes_per_node, strategy.num_nodes) == (use_cpu, processes, 1)
    assert yaml.safe_load(path.read_text())["mixed_precision"] in ("no", "bf16")  # a YAML 1.1 reader must not see False
