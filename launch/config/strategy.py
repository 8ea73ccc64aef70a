"""How a training is spread: what an Accelerate configuration file says, read as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launch.config.errors import ConfigError, Problem, suggest
from launch.config.experiment import Precision
from launch.config.load import find_shipped
from launch.config.sharding import DeepSpeed, Fsdp
from launch.config.yaml_files import Document, load_yaml

Engine = Literal["single", "ddp", "fsdp2", "deepspeed"]
ENGINES: dict[str, Engine] = {"NO": "single", "MULTI_CPU": "ddp", "MULTI_GPU": "ddp", "FSDP": "fsdp2", "DEEPSPEED": "deepspeed"}
"""Accelerate's distributed_type -> the engine that runs it."""

PRECISIONS: dict[str, Precision] = {"no": "fp32", "fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "fp8": "fp8"}

ACCELERATE_KEYS = frozenset(
    "command_file commands compute_environment debug deepspeed_config distributed_type downcast_bf16 dynamo_config "
    "enable_cpu_affinity fp8_config fsdp_config gpu_ids ipex_config machine_rank main_process_ip main_process_port "
    "main_training_function megatron_lm_config mixed_precision mpirun_config num_machines num_processes "
    "parallelism_config rdzv_backend same_network tpu_env tpu_name tpu_use_cluster tpu_use_sudo tpu_vm tpu_zone use_cpu".split()
)
"""Keys of accelerate.commands.config.config_args.ClusterConfig, 1.15 (some of older versions)."""

INERT: dict[str, tuple[object, ...]] = {
    "compute_environment": ("LOCAL_MACHINE",),
    "downcast_bf16": ("no", False),
    "fp8_config": ({}, None),
    "ipex_config": ({}, None),
    "mpirun_config": ({}, None),
    "dynamo_config": ({}, None),
    "parallelism_config": ({}, None),
    "gpu_ids": ("all", None),
    "enable_cpu_affinity": (False,),
    "main_training_function": ("main",),
    "megatron_lm_config": ({}, None),
    "tpu_name": (None,),
    "tpu_zone": (None,),
    "commands": (None,),
    "command_file": (None,),
    "tpu_vm": (None,),
    "tpu_env": ([], None),
    "tpu_use_cluster": (False,),
    "tpu_use_sudo": (False,),
}
"""Keys that would change the training but that fullrank does not pass on, with the values that mean nothing."""


@dataclass(frozen=True)
class Strategy:
    """What a strategy file says; None means that it does not say.

    Args:
        name: its short name, `auto` or a file's stem.
        engine: what keeps the processes in step.
        use_cpu: True trains on CPUs, False on GPUs, None on GPUs where there are some.
        num_nodes, processes_per_node: defaults for --nodes and --processes-per-node.
        fsdp: what FSDP2 is told; set exactly under the engine `fsdp2`.
        deepspeed: what DeepSpeed is told; set exactly under the engine `deepspeed`.
        where: the file, or None for `auto`.
    """

    name: str
    engine: Engine | None = None
    use_cpu: bool | None = None
    precision: Precision | None = None
    num_nodes: int | None = None
    processes_per_node: int | None = None
    main_process_port: int | None = None
    fsdp: Fsdp | None = None
    deepspeed: DeepSpeed | None = None
    where: str | None = None


AUTO = Strategy("auto")


def load_strategy(name_or_path: str) -> Strategy:
    """Returns the strategy behind `auto`, a shipped name, or an Accelerate YAML file.

    Raises:
        ConfigError: with every problem of the file at once.
    """
    if name_or_path == "auto":
        return AUTO
    path = find_shipped(name_or_path, "accelerate")
    return parse_strategy(load_yaml(path))


def find_strategy(environment: Mapping[str, str]) -> Strategy | None:
    """Returns the FSDP2 or DeepSpeed strategy that `accelerate launch` put into the environment; None: it put neither there.

    Raises:
        ConfigError: as parse_strategy.
    """
    return None


def parse_strategy(document: Document) -> Strategy:
    """Returns the strategy that an Accelerate file's values say; pure.

    Raises:
        ConfigError: unknown keys, values fullrank cannot honour, counts that do not divide.
    """
    values, problems = document.values, []

    def problem(key: str, what: str, allowed: str | None = None, fix: str | None = None) -> None:
        problems.append(Problem(what, document.where((key,)), key, allowed, fix))

    for key in values:
        if key not in ACCELERATE_KEYS:
            near = suggest(key, ACCELERATE_KEYS)
            problem(key, "no such key in an Accelerate configuration" + (f"; did you mean {near!r}?" if near else ""))
    for key, inert in INERT.items():
        if key in values and values[key] not in inert and not (key == "gpu_ids" and _hides_gpus(values)):
            problem(key, f"{values[key]!r} cannot be honoured", allowed=f"leave it out, or {inert[0]!r}")
    kind = values.get("distributed_type", "NO")
    if kind not in ENGINES:
        problem("distributed_type", f"{kind!r} has no engine here", allowed=", ".join(ENGINES))
    precision = str(values.get("mixed_precision", "no"))
    if precision not in PRECISIONS:
        problem("mixed_precision", f"{precision!r} is not possible", allowed=", ".join(PRECISIONS))
    for key in ("deepspeed_config", "fsdp_config"):
        if values.get(key):
            problem(key, f"does not belong to distributed_type {kind!r}", fix=f"delete {key}, or choose the distributed_type it is for")
    counts = {key: _count(key, values, problem) for key in ("num_processes", "num_machines", "main_process_port")}
    num_nodes, total = counts["num_machines"], counts["num_processes"]
    if total and total % (num_nodes or 1):
        problem("num_processes", f"{total} processes do not spread evenly over {num_nodes} machines", allowed=f"a multiple of {num_nodes}")
    if ENGINES.get(str(kind)) == "single" and (total or 1) > 1:
        problem(
            "num_processes",
            f"{total} processes with distributed_type NO would train {total} separate models",
            fix="distributed_type: MULTI_GPU (or MULTI_CPU)",
        )
    if problems:
        raise ConfigError(*problems)
    return Strategy(
        name=document.path.stem,
        engine=ENGINES[str(kind)],
        use_cpu=_uses_cpu(values),
        precision=PRECISIONS[precision] if "mixed_precision" in values else None,
        num_nodes=num_nodes,
        processes_per_node=total // (num_nodes or 1) if total else None,
        main_process_port=counts["main_process_port"],
        where=str(Path(document.path)),
    )


def _uses_cpu(values: dict[str, Any]) -> bool | None:
    if values.get("use_cpu") or values.get("distributed_type") == "MULTI_CPU" or _hides_gpus(values):
        return True
    return False if values.get("distributed_type") == "MULTI_GPU" or values.get("use_cpu") is False else None


def _hides_gpus(values: dict[str, Any]) -> bool:
    """Returns whether gpu_ids names only GPUs that do not exist: how a file that `accelerate launch` starts several CPU processes with says so."""
    ids = values.get("gpu_ids")
    return ids is not None and {part.strip() for part in str(ids).split(",")} == {"-1"}


def _count(key: str, values: dict[str, Any], problem: Any) -> int | None:
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < (0 if key.endswith("port") else 1):
        problem(key, f"{value!r} is not a whole number above 0")
        return None
    return value
