from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.strategy import AUTO, Strategy, find_strategy, load_strategy
from launch.plan import Options
from launch.plan_script import plan_script
from launch.render import describe_plan, launch_argv, launch_environment, rank_environment, render_command, render_files
from launch.script_file import ScriptFile

JOINING = ScriptFile(Path("/home/me/train.py"), (Path("/home/me/train.py"),), joins_processes=True)
ALONE = ScriptFile(Path("/home/me/train.py"), (Path("/home/me/train.py"),), joins_processes=False)
RUN = Path("/runs/train/20260101-000000-abcdef")


@pytest.fixture
def make(make_probe):
    def plan(script=JOINING, arguments=("--lr", "1e-3"), strategy=AUTO, num_gpus=0, **options):
        return plan_script(script, arguments, Path("/home/me"), strategy, make_probe(num_gpus=num_gpus), Options(RUN, **options))

    return plan


def test_one_process_is_plain_python(make):
    plan = make()
    assert launch_argv(plan) == ["/env/bin/python", "/home/me/train.py", "--lr", "1e-3"]
    assert rank_environment(plan, 0) == {"OMP_NUM_THREADS": "8", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}


def test_ranks_get_torchruns_variables_and_accelerate_is_told_of_the_cpu(make):
    assert rank_environment(make(processes_per_node=2), 1) == {
        "OMP_NUM_THREADS": "4",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "22108",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_precision_of_the_strategy_is_told_to_accelerate(make):
    strategy = Strategy("ddp", engine="ddp", use_cpu=False, precision="bf16", processes_per_node=2, where="/s.yaml")
    assert launch_environment(make(strategy=strategy, num_gpus=2))["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_stock_launchers_get_the_script_and_leave_its_folder_on_the_path(make):
    for launcher, end in (("torchrun", "--master-port"), ("accelerate", "--config_file"), ("deepspeed", "--no_local_rank")):
        plan = make(processes_per_node=2, launcher=launcher)
        assert launch_argv(plan)[-3:] == ["/home/me/train.py", "--lr", "1e-3"]
        assert end in launch_argv(plan)
        assert "PYTHONSAFEPATH" not in launch_environment(plan)


def test_script_that_joins_nothing_is_one_process_on_many_gpus(make):
    plan = make(ALONE, num_gpus=8)
    assert plan.processes_per_node == 1
    assert plan.warnings == ("7 of 8 GPUs stay idle: --processes-per-node 8 uses all",)
    assert make(num_gpus=8).processes_per_node == 8


def test_script_that_joins_nothing_is_warned_of_where_several_processes_are_asked_for(make):
    assert make(ALONE, processes_per_node=2).warnings == (
        "nothing in train.py joins processes (accelerate, torch.distributed, ...): "
        "2 processes would train 2 separate models, over each other's files",
    )


def test_plan_json_says_how_to_start_it_again(make):
    facts = describe_plan(make())
    assert (facts["script"], facts["arguments"], facts["folder"]) == ("/home/me/train.py", ["--lr", "1e-3"], "/home/me")
    assert "optimizer_steps" not in facts


def test_run_directory_gets_no_experiment_files(make, make_probe):
    assert sorted(render_files(make(), make_probe())) == [
        "attempts/0001/accelerate.yaml",
        "attempts/0001/command.sh",
        "attempts/0001/environment.json",
        "attempts/0001/plan.json",
    ]


def test_command_sh_starts_it_again_in_its_folder(make):
    assert render_command(make()) == (
        "#!/usr/bin/env bash\n"
        "# train: the same training again, in a new run directory, without fullrank (1 process).\n"
        "# Arguments go on to the script:  bash command.sh --lr 3e-5\n"
        "set -euo pipefail\n"
        "cd /home/me\n"
        "export OMP_NUM_THREADS=8\n"
        "export ACCELERATE_USE_CPU=true\n"
        "export CUDA_VISIBLE_DEVICES=''\n"
        "exec /env/bin/python /home/me/train.py \\\n"
        '  --lr 1e-3 "$@"\n'
    )


def test_a_script_is_told_of_fsdp2_as_accelerate_launch_would(make):
    environment = launch_environment(make(strategy=load_strategy("fsdp2"), num_gpus=2))
    assert {name: value for name, value in environment.items() if "FSDP" in name} == {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_OFFLOAD_PARAMS": "false",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    }
    assert find_strategy(environment).fsdp == load_strategy("fsdp2").fsdp


def test_a_scripts_deepspeed_json_leaves_batches_to_accelerate_and_says_the_precision(make, make_probe):
    plan = make(strategy=load_strategy("zero2"), num_gpus=2)
    config = json.loads(render_files(plan, make_probe())["attempts/0001/deepspeed.json"])
    assert (config["train_batch_size"], config["bf16"], config["fp16"]) == ("auto", {"enabled": True}, {"enabled": False})
    assert launch_environment(plan)["ACCELERATE_DEEPSPEED_CONFIG_FILE"] == str(plan.attempt.deepspeed)


@pytest.mark.parametrize(("name", "what"), [("fsdp2", "does not shard, and says nothing"), ("zero2", "joins no DeepSpeed processes")])
def test_a_script_on_a_cpu_is_refused_what_accelerate_does_not_do_there(make, name, what):
    with pytest.raises(ConfigError, match=what):
        make(strategy=replace(load_strategy(name), precision="fp32"))
