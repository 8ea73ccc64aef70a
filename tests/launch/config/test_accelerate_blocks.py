from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.sharding import Fsdp
from launch.config.strategy import find_strategy, parse_strategy
from launch.config.yaml_files import load_yaml

FSDP = "distributed_type: FSDP\nmixed_precision: bf16\nfsdp_config:\n"
DEEPSPEED = "distributed_type: DEEPSPEED\ndeepspeed_config:\n"


def parse(tmp_path: Path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return parse_strategy(load_yaml(path))


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(tmp_path, text)
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_what_accelerate_config_writes_for_fsdp2_is_read(tmp_path):
    found = parse(
        tmp_path,
        f"{FSDP}  fsdp_activation_checkpointing: true\n  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP\n  fsdp_cpu_ram_efficient_loading: false\n"
        "  fsdp_offload_params: true\n  fsdp_reshard_after_forward: false\n  fsdp_state_dict_type: SHARDED_STATE_DICT\n"
        "  fsdp_transformer_layer_cls_to_wrap: BertLayer,T5Block\n  fsdp_version: 2\nnum_processes: 4\n",
    )
    assert (found.engine, found.precision, found.use_cpu, found.processes_per_node) == ("fsdp2", "bf16", None, 4)
    assert found.fsdp == Fsdp(
        reshard_after_forward=False,
        offload=True,
        wrap="layers",
        layer_classes=("BertLayer", "T5Block"),
        activation_checkpointing=True,
        cpu_ram_efficient_loading=False,
    )


def test_keys_without_their_prefix_are_read_as_accelerate_reads_them(tmp_path):
    found = parse(tmp_path, f"{FSDP}  version: 2\n  auto_wrap_policy: SIZE_BASED_WRAP\n  min_num_params: 1000\n")
    assert (found.fsdp.wrap, found.fsdp.min_num_params) == ("size", 1000)


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("  fsdp_sharding_strategy: FULL_SHARD\n", "fsdp_version: 2 and fsdp_reshard_after_forward: true"),
        ("  fsdp_sharding_strategy: SHARD_GRAD_OP\n  fsdp_version: 1\n", "fsdp_version: 2 and fsdp_reshard_after_forward: false"),
        ("  fsdp_reshard_after_forward: FULL_SHARD\n  fsdp_version: 1\n", "fsdp_version: 2 and fsdp_reshard_after_forward: true"),
        ("  fsdp_sharding_strategy: NO_SHARD\n", "distributed_type: MULTI_GPU for NO_SHARD"),
    ],
)
def test_fsdp1_is_refused_with_what_to_write(tmp_path, said, fix):
    (problem,) = problems(tmp_path, FSDP + said)
    assert "FSDP1" in problem or "fsdp_version 1 has no engine here" in problem
    assert f"try: {fix}" in problem


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("fsdp_offload_param: true", "mine.yaml:5: fsdp_config.fsdp_offload_param: FSDP2 has no such key; did you mean 'fsdp_offload_params'?"),
        ("fsdp_state_dict_type: FULL_STATE_DICT", "mine.yaml:5: fsdp_config.fsdp_state_dict_type: 'FULL_STATE_DICT' cannot be honoured"),
        ("fsdp_offload_params: 1", "mine.yaml:5: fsdp_config.fsdp_offload_params: 1 is not possible"),
        ("fsdp_auto_wrap_policy: LAYERS", "mine.yaml:5: fsdp_config.fsdp_auto_wrap_policy: 'LAYERS' is not possible"),
        ("fsdp_auto_wrap_policy: SIZE_BASED_WRAP", "fsdp_config.fsdp_min_num_params: SIZE_BASED_WRAP needs the smallest module"),
    ],
)
def test_what_fsdp2_cannot_be_told_is_refused_with_its_line(tmp_path, line, problem):
    (found,) = problems(tmp_path, f"{FSDP}  fsdp_version: 2\n  {line}\n")
    assert problem in found


def test_deepspeed_config_becomes_deepspeeds_own_keys(tmp_path):
    text = f"{DEEPSPEED}  zero_stage: 3\n  offload_optimizer_device: cpu\n  offload_param_device: none\n"
    text += "  gradient_clipping: 1.0\n  zero3_init_flag: true\n"
    found = parse(tmp_path, text + "mixed_precision: bf16\n")
    assert (found.engine, found.precision, found.use_cpu, found.deepspeed.zero3_init) == ("deepspeed", "bf16", None, True)
    assert found.deepspeed.config == {
        "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "none"}},
        "gradient_clipping": 1.0,
    }
    assert (found.deepspeed.stage, found.deepspeed.offload_optimizer, found.deepspeed.offload_param) == (3, "cpu", None)
    assert found.deepspeed.place("gradient_clipping") == (f"{tmp_path}/mine.yaml:6", "deepspeed_config.gradient_clipping")


def test_a_deepspeed_file_lies_beside_the_yaml_file(tmp_path):
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2}, "bf16": {"enabled": true}}')
    found = parse(tmp_path, f"{DEEPSPEED}  deepspeed_config_file: ds.json\n")
    assert (found.deepspeed.stage, found.precision, found.deepspeed.where) == (2, "bf16", str(tmp_path / "ds.json"))
    assert found.deepspeed.place("bf16.enabled") == (str(tmp_path / "ds.json"), "bf16.enabled")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("  zero_stag: 2\n", "mine.yaml:3: deepspeed_config.zero_stag: no such key in a deepspeed_config; did you mean 'zero_stage'?"),
        ("  zero_stage: 5\n", "mine.yaml:3: deepspeed_config.zero_stage: 5 is not a stage of ZeRO"),
        ("  offload_param_device: cpu\n", "mine.yaml:3: deepspeed_config.offload_param_device: 'cpu' has no effect at stage 2"),
        ("  offload_param_device: tape\n", "mine.yaml:3: deepspeed_config.offload_param_device: 'tape' is not possible"),
        ("  zero_stage: 3\n  offload_param_device: nvme\n", "nvme needs a folder on that disk"),
        ("  deepspeed_multinode_launcher: pdsh\n", "mine.yaml:3: deepspeed_config.deepspeed_multinode_launcher: 'pdsh' starts the nodes by itself"),
        ("  deepspeed_config_file: no.json\n", "mine.yaml:3: deepspeed_config.deepspeed_config_file: there is no no.json"),
        (
            "  deepspeed_config_file: no.json\n  zero_stage: 2\n",
            "mine.yaml:4: deepspeed_config.zero_stage: stands beside deepspeed_config_file, and Accelerate refuses both (no.json)",
        ),
        ("  deepspeed_config_file: no.json\nmixed_precision: bf16\n", "mine.yaml:4: mixed_precision: stands beside deepspeed_config_file"),
    ],
)
def test_what_deepspeed_cannot_be_told_is_refused_with_its_line(tmp_path, text, problem):
    assert any(problem in found for found in problems(tmp_path, DEEPSPEED + text))


def test_fsdp2_is_found_in_what_accelerate_launch_exports():
    exported = {
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "FSDP_VERSION": "2",
        "FSDP_SHARDING_STRATEGY": "FULL_SHARD",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_OFFLOAD_PARAMS": "false",
        "FSDP_MIN_NUM_PARAMS": "100000000",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
    }
    found = find_strategy(exported)
    assert (found.engine, found.precision, found.fsdp) == ("fsdp2", "bf16", Fsdp(min_num_params=100000000))


def test_deepspeed_is_found_in_what_accelerate_launch_exports():
    exported = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}
    found = find_strategy(exported)
    assert (found.engine, found.precision, found.deepspeed.stage) == ("deepspeed", "fp32", 3)
    assert find_strategy({"ACCELERATE_MIXED_PRECISION": "bf16"}) is None
