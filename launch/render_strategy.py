"""LaunchPlan -> the strategy of the attempt in Accelerate's own format, with every count final; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launch.config.accelerate_blocks import WRAP_POLICIES
from launch.config.experiment import Precision
from launch.config.sharding import DeepSpeed, Fsdp
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan

MIXED_PRECISION: dict[Precision, str] = {"fp32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16", "fp8": "fp8"}
"""Accelerate's words; it has none for tf32, which the experiment says."""


def render_accelerate(plan: LaunchPlan) -> str:
    """Returns the strategy with its final counts, in Accelerate's own format; stock `accelerate launch` trains the same with it."""
    fsdp, deepspeed = plan.strategy.fsdp, plan.strategy.deepspeed
    joins, on_cpu = joins_processes(plan), plan.device == "cpu"
    kind = "FSDP" if fsdp else "DEEPSPEED" if deepspeed else "MULTI_GPU" if joins else quoted("NO")
    lines = [f"# {num_processes(plan)} on the {'CPU' if on_cpu else 'GPU'}.", "compute_environment: LOCAL_MACHINE"]
    if joins and on_cpu:
        lines += _WHY_HIDDEN_GPUS if kind == "MULTI_GPU" else _WHY_HIDDEN_GPUS_SHARDED
    lines += [f"distributed_type: {kind}", f"use_cpu: {_yes(on_cpu and not joins)}"]
    if joins and on_cpu:
        lines.append(f'gpu_ids: "{",".join(["-1"] * plan.processes_per_node)}"')
    lines += [f"num_machines: {plan.nodes}", f"num_processes: {plan.world_size}", "machine_rank: 0"]
    if deepspeed:
        lines.append("# Precision, accumulation and clipping stand in deepspeed.json: Accelerate refuses them here beside it.")
    else:
        lines.append(f"mixed_precision: {quoted(MIXED_PRECISION[plan.precision])}")
    if joins:
        lines.append(f"main_process_port: {plan.port}")
    if fsdp:
        lines += ["fsdp_config:", *(f"  {name}: {_word(value)}" for name, value in fsdp_config(fsdp).items())]
    if deepspeed:
        lines += ["deepspeed_config:", *(f"  {name}: {_word(value)}" for name, value in _deepspeed_config(plan, deepspeed).items())]
    return "\n".join(lines) + "\n"


_WHY_HIDDEN_GPUS = [
    "# `accelerate launch` starts one process for MULTI_CPU or use_cpu, whatever num_processes says (it leaves more to mpirun).",
    "# MULTI_GPU starts them all; the ids of GPUs that do not exist hide the real ones, so that the training is on the CPU.",
]
_WHY_HIDDEN_GPUS_SHARDED = [
    "# With use_cpu `accelerate launch` leaves the sharding out; the ids of GPUs that do not exist hide the real ones instead.",
]


def joins_processes(plan: LaunchPlan) -> bool:
    """Returns whether the ranks form a process group: several do, and engines that shard need one for a single rank too."""
    return plan.world_size > 1 or plan.engine in ("fsdp2", "deepspeed")


def configured_deepspeed(plan: LaunchPlan) -> Mapping[str, Any] | None:
    """Returns DeepSpeed's configuration of the attempt; a script's batches are "auto", because only the script knows them (Accelerate fills them)."""
    if plan.strategy.deepspeed is None:
        return None
    if isinstance(plan, ExperimentPlan):
        return plan.deepspeed
    written = plan.strategy.deepspeed.config
    batches = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto")
    halves = {name: {**(written.get(name) or {}), "enabled": plan.precision == name} for name in ("bf16", "fp16")}
    return {**batches, **written, **halves}


def fsdp_config(fsdp: Fsdp) -> dict[str, Any]:
    """Returns FSDP2's settings under Accelerate's names."""
    values: dict[str, Any] = {
        "fsdp_version": 2,
        "fsdp_reshard_after_forward": fsdp.reshard_after_forward,
        "fsdp_offload_params": fsdp.offload,
        "fsdp_auto_wrap_policy": WRAP_POLICIES[fsdp.wrap],
    }
    if fsdp.layer_classes:
        values["fsdp_transformer_layer_cls_to_wrap"] = ",".join(fsdp.layer_classes)
    if fsdp.min_num_params:
        values["fsdp_min_num_params"] = fsdp.min_num_params
    return values | {
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        "fsdp_activation_checkpointing": fsdp.activation_checkpointing,
        "fsdp_cpu_ram_efficient_loading": fsdp.cpu_ram_efficient_loading,
    }


def script_engine_environment(plan: LaunchPlan) -> dict[str, str]:
    """Returns what `accelerate launch` would export for a script under FSDP2 or DeepSpeed, when fullrank starts it."""
    if plan.strategy.fsdp:
        names = {"fsdp_transformer_layer_cls_to_wrap": "FSDP_TRANSFORMER_CLS_TO_WRAP"}
        values = fsdp_config(plan.strategy.fsdp)
        return {"ACCELERATE_USE_FSDP": "true"} | {names.get(name, name.upper()): _word(value) for name, value in values.items()}
    if plan.strategy.deepspeed:
        environment = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(plan.attempt.deepspeed)}
        return environment | {"ACCELERATE_DEEPSPEED_ZERO3_INIT": _yes(_inits_sharded(plan.strategy.deepspeed))}
    return {}


def _deepspeed_config(plan: LaunchPlan, deepspeed: DeepSpeed) -> dict[str, Any]:
    return {
        "deepspeed_config_file": plan.attempt.deepspeed,
        "zero3_init_flag": _inits_sharded(deepspeed),
        "deepspeed_multinode_launcher": "standard",
    }


def _inits_sharded(deepspeed: DeepSpeed) -> bool:
    return deepspeed.stage == 3 if deepspeed.zero3_init is None else deepspeed.zero3_init and deepspeed.stage == 3


def quoted(word: str) -> str:
    """Returns a YAML word that no YAML 1.1 reader takes for a boolean."""
    return f"'{word}'" if word.lower() in ("no", "yes", "on", "off") else word


def num_processes(plan: LaunchPlan) -> str:
    """Returns `1 process`, `2 processes`, ..."""
    return f"{plan.world_size} process{'es' if plan.world_size > 1 else ''}"


def _word(value: Any) -> str:
    return _yes(value) if isinstance(value, bool) else str(value)


def _yes(value: bool) -> str:
    return "true" if value else "false"
