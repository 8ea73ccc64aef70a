"""How a training is spread: what an Accelerate configuration file says, read as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launch.config.accelerate_blocks import parse_deepspeed, parse_fsdp
from launch.config.deepspeed import read_deepspeed, value_at
from launch.config.errors import ConfigError, Problem, suggest
from launch.config.experiment import Precision
from launch.config.load import find_shipped
from launch.config.sharding import DeepSpeed, Fsdp
from launch.config.yaml_files import Document, load_yaml, parse_scalar

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


_TRUE = ("1", "true", "yes")
_FSDP_VARIABLES = {
    "FSDP_VERSION": "fsdp_version",
    "FSDP_RESHARD_AFTER_FORWARD": "fsdp_reshard_after_forward",
    "FSDP_OFFLOAD_PARAMS": "fsdp_offload_params",
    "FSDP_AUTO_WRAP_POLICY": "fsdp_auto_wrap_policy",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "fsdp_transformer_layer_cls_to_wrap",
    "FSDP_MIN_NUM_PARAMS": "fsdp_min_num_params",
    "FSDP_STATE_DICT_TYPE": "fsdp_state_dict_type",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "fsdp_cpu_ram_efficient_loading",
    "FSDP_ACTIVATION_CHECKPOINTING": "fsdp_activation_checkpointing",
}
_DEEPSPEED_VARIABLES = {
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": "deepspeed_config_file",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "zero_stage",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "offload_optimizer_device",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "offload_param_device",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_NVME_PATH": "offload_optimizer_nvme_path",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_NVME_PATH": "offload_param_nvme_path",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "zero3_init_flag",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "gradient_accumulation_steps",
    "ACCELERATE_GRADIENT_CLIPPING": "gradient_clipping",
}
"""What `accelerate launch` exports for each key. Source: accelerate 1.15, utils/launch.py."""


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
    if path.suffix == ".json":
        return _of_deepspeed_file(path)
    return parse_strategy(load_yaml(path))


def find_strategy(environment: Mapping[str, str]) -> Strategy | None:
    """Returns the FSDP2 or DeepSpeed strategy that `accelerate launch` put into the environment; None: it put neither there.

    Raises:
        ConfigError: as parse_strategy; the place is the variables' common beginning.
    """
    values: dict[str, Any] = {}
    told = [name for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED") if environment.get(name, "").lower() in _TRUE]
    if len(told) > 1:
        raise ConfigError(Problem(f"{' and '.join(told)} are both set: two strategies at once", fix=f"unset {told[0]}, or {told[1]}"))
    if environment.get("ACCELERATE_USE_FSDP", "").lower() in _TRUE:
        block = {key: parse_scalar(environment[name]) for name, key in _FSDP_VARIABLES.items() if environment.get(name) not in (None, "None")}
        values = {"distributed_type": "FSDP", "fsdp_config": block}
    elif environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() in _TRUE:
        block = {key: parse_scalar(environment[name]) for name, key in _DEEPSPEED_VARIABLES.items() if environment.get(name) not in (None, "None")}
        if "deepspeed_config_file" in block:  # launch passes on defaults of its own beside it, which Accelerate then ignores
            block = {key: value for key, value in block.items() if key in ("deepspeed_config_file", "zero3_init_flag")}
        values = {"distributed_type": "DEEPSPEED", "deepspeed_config": block}
    if not values:
        return None
    precision = environment.get("ACCELERATE_MIXED_PRECISION")
    if precision and "deepspeed_config_file" not in values.get("deepspeed_config", {}):
        values["mixed_precision"] = precision
    return parse_strategy(Document(values, Path("accelerate launch")))


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
    engine, fsdp, deepspeed = ENGINES.get(str(kind)), None, None
    try:
        fsdp = parse_fsdp(document) if engine == "fsdp2" else None
        deepspeed = parse_deepspeed(document) if engine == "deepspeed" else None
    except ConfigError as error:
        problems.extend(error.problems)
    precision = str(values.get("mixed_precision", "no"))
    if precision not in PRECISIONS:
        problem("mixed_precision", f"{precision!r} is not possible", allowed=", ".join(PRECISIONS))
    for key, owner in (("deepspeed_config", "deepspeed"), ("fsdp_config", "fsdp2")):
        if values.get(key) and engine != owner:
            problem(key, f"does not belong to distributed_type {kind!r}", fix=f"delete {key}, or choose the distributed_type it is for")
    if engine in ("fsdp2", "deepspeed") and values.get("use_cpu"):
        what = f"with it `accelerate launch` leaves {kind} out and says nothing"
        problem("use_cpu", what, fix='gpu_ids: "-1" (once a process: "-1,-1"), which hides the GPUs; without a GPU leave both out')
    counts = {key: _count(key, values, problem) for key in ("num_processes", "num_machines", "main_process_port")}
    num_nodes, total = counts["num_machines"], counts["num_processes"]
    if total and total % (num_nodes or 1):
        problem("num_processes", f"{total} processes do not spread evenly over {num_nodes} machines", allowed=f"a multiple of {num_nodes}")
    if engine == "single" and (total or 1) > 1:
        problem(
            "num_processes",
            f"{total} processes with distributed_type NO would train {total} separate models",
            fix="distributed_type: MULTI_GPU (or MULTI_CPU)",
        )
    if problems:
        raise ConfigError(*problems)
    return Strategy(
        name=document.path.stem,
        engine=engine,
        use_cpu=_uses_cpu(values),
        precision=PRECISIONS[precision] if "mixed_precision" in values else _enabled_precision(deepspeed),
        num_nodes=num_nodes,
        processes_per_node=total // (num_nodes or 1) if total else None,
        main_process_port=counts["main_process_port"],
        fsdp=fsdp,
        deepspeed=deepspeed,
        where=str(Path(document.path)),
    )


def _of_deepspeed_file(path: Path) -> Strategy:
    """Returns the strategy of a DeepSpeed JSON file given by itself."""
    deepspeed = read_deepspeed(path)
    return Strategy(path.stem, engine="deepspeed", precision=_enabled_precision(deepspeed), deepspeed=deepspeed, where=str(path))


def _enabled_precision(deepspeed: DeepSpeed | None) -> Precision | None:
    """Returns the precision that a DeepSpeed configuration enables; None: it leaves it to the experiment."""
    enabled = [] if deepspeed is None else [name for name in ("bf16", "fp16") if value_at(deepspeed.config, f"{name}.enabled") is True]
    return PRECISIONS[enabled[0]] if enabled else None


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
