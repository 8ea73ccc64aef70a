from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.load import shipped_configs
from launch.config.strategy import AUTO, load_strategy, parse_strategy
from launch.config.yaml_files import load_yaml


def parse(tmp_path: Path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return parse_strategy(load_yaml(path))


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, text)
    return [str(problem).replace(f"{tmp_path}/", "").splitlines()[0] for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("name", "engine", "use_cpu", "precision", "processes"),
    [
        ("cpu", "ddp", True, "fp32", 1),
        ("single_gpu", "single", False, "bf16", 1),
        ("ddp", "ddp", False, "bf16", 2),
        ("fsdp2", "fsdp2", None, "bf16", 2),
        ("fsdp2_offload", "fsdp2", False, "bf16", 2),
        ("zero1", "deepspeed", None, "bf16", 2),
        ("zero2", "deepspeed", None, "bf16", 2),
        ("zero3", "deepspeed", None, "bf16", 2),
        ("zero3_offload", "deepspeed", None, "bf16", 1),
    ],
)
def test_shipped_strategies_say_what_their_names_say(name, engine, use_cpu, precision, processes):
    found = load_strategy(name)
    assert (found.name, found.engine, found.use_cpu, found.precision, found.num_nodes, found.processes_per_node) == (
        name,
        engine,
        use_cpu,
        precision,
        1,
        processes,
    )


def test_every_shipped_strategy_has_a_header_that_says_when_cost_and_limits():
    for path in (shipped_configs() / "accelerate").glob("*.yaml"):
        header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert all(any(line.startswith(f"# {word}:") for line in header) for word in ("When", "Cost", "Cannot")), path


def test_shipped_deepspeed_files_say_the_same_as_the_strategies_of_their_names():
    for path in sorted((shipped_configs() / "deepspeed").glob("*.json")):
        alone = load_strategy(str(path))
        assert (alone.engine, alone.name, alone.where, alone.precision) == ("deepspeed", path.stem, str(path), None)
        if path.stem != "zero3_nvme":
            shipped = load_strategy(path.stem).deepspeed
            assert (alone.deepspeed.stage, alone.deepspeed.offload_optimizer, alone.deepspeed.offload_param) == (
                shipped.stage,
                shipped.offload_optimizer,
                shipped.offload_param,
            )


def test_auto_says_nothing():
    assert load_strategy("auto") is AUTO
    assert (AUTO.engine, AUTO.use_cpu, AUTO.precision, AUTO.processes_per_node) == (None, None, None, None)


def test_what_accelerate_config_writes_is_read(tmp_path):
    found = parse(
        tmp_path,
        "compute_environment: LOCAL_MACHINE\ndebug: false\ndistributed_type: MULTI_GPU\ndowncast_bf16: 'no'\nenable_cpu_affinity: false\n"
        "gpu_ids: all\nmachine_rank: 0\nmain_process_port: 29501\nmain_training_function: main\nmixed_precision: fp16\nnum_machines: 2\n"
        "num_processes: 16\nrdzv_backend: static\nsame_network: true\ntpu_env: []\ntpu_use_cluster: false\ntpu_use_sudo: false\nuse_cpu: false\n",
    )
    assert (found.engine, found.use_cpu, found.precision, found.num_nodes, found.processes_per_node) == ("ddp", False, "fp16", 2, 8)
    assert found.main_process_port == 29501


def test_gpus_that_do_not_exist_mean_the_cpu(tmp_path):
    assert parse(tmp_path, 'distributed_type: MULTI_GPU\nnum_processes: 2\ngpu_ids: "-1,-1"\n').use_cpu is True


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "distributed_typ: MULTI_GPU\n",
            "mine.yaml:1: distributed_typ: no such key in an Accelerate configuration; did you mean 'distributed_type'?",
        ),
        ("distributed_type: TPU\n", "mine.yaml:1: distributed_type: 'TPU' has no engine here"),
        (
            "distributed_type: FSDP\ndeepspeed_config: {zero_stage: 2}\nfsdp_config: {fsdp_version: 2}\n",
            "mine.yaml:2: deepspeed_config: does not belong to distributed_type 'FSDP'",
        ),
        (
            "distributed_type: FSDP\nuse_cpu: true\nfsdp_config: {fsdp_version: 2}\n",
            "mine.yaml:2: use_cpu: with it `accelerate launch` leaves FSDP out and says nothing",
        ),
        ("mixed_precision: bf8\n", "mine.yaml:1: mixed_precision: 'bf8' is not possible"),
        (
            "distributed_type: 'NO'\nnum_processes: 2\n",
            "mine.yaml:2: num_processes: 2 processes with distributed_type NO would train 2 separate models",
        ),
        (
            "distributed_type: MULTI_GPU\nnum_machines: 2\nnum_processes: 3\n",
            "mine.yaml:3: num_processes: 3 processes do not spread evenly over 2 machines",
        ),
        ("num_processes: 0\n", "mine.yaml:1: num_processes: 0 is not a whole number above 0"),
        ("num_processes: true\n", "mine.yaml:1: num_processes: True is not a whole number above 0"),
        ("gpu_ids: 0,1\n", "mine.yaml:1: gpu_ids: '0,1' cannot be honoured"),
        ("deepspeed_config: {zero_stage: 2}\n", "mine.yaml:1: deepspeed_config: does not belong to distributed_type 'NO'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_line(tmp_path, text, problem):
    assert problem in problems(tmp_path, text)


def test_problems_come_at_once(tmp_path):
    assert len(problems(tmp_path, "mixed_precision: bf8\ndistributed_type: TPU\nnum_processes: none\n")) == 3


def test_unknown_strategy_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'ddp'"):
        load_strategy("dpp")
