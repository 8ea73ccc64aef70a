"""The fsdp_config and deepspeed_config of an Accelerate file, as FSDP2 and DeepSpeed are told them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from launch.config.deepspeed import check_deepspeed, read_deepspeed
from launch.config.errors import ConfigError, Problem, suggest
from launch.config.sharding import DeepSpeed, Fsdp
from launch.config.yaml_files import Document

WRAPS: dict[str, Literal["layers", "size", "root"]] = {"TRANSFORMER_BASED_WRAP": "layers", "SIZE_BASED_WRAP": "size", "NO_WRAP": "root"}
WRAP_POLICIES = {wrap: policy for policy, wrap in WRAPS.items()}
"""Fsdp.wrap -> Accelerate's name for it."""

FSDP_DEFAULTS: dict[str, Any] = {
    "fsdp_version": 1,
    "fsdp_reshard_after_forward": True,
    "fsdp_offload_params": False,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_transformer_layer_cls_to_wrap": None,
    "fsdp_min_num_params": 0,
    "fsdp_activation_checkpointing": False,
    "fsdp_cpu_ram_efficient_loading": True,
}
FSDP_INERT: dict[str, tuple[object, ...]] = {
    "fsdp_state_dict_type": ("SHARDED_STATE_DICT",),
    "fsdp_sync_module_states": (True,),
    "fsdp_use_orig_params": (True,),
    "fsdp_forward_prefetch": (False,),
    "fsdp_backward_prefetch": ("BACKWARD_PRE", "NO_PREFETCH", None),
    "fsdp_activation_checkpointing_offload": (False,),
    "fsdp_ignored_modules": (None,),
}
"""Keys that FSDP2 does not have or that are not passed on, with the values that change nothing.

Source of both tables: accelerate 1.15, commands/config/cluster.py and the FSDP arguments of commands/launch.py.
"""

_FSDP1_RESHARD = {"FULL_SHARD": "true", "1": "true", "SHARD_GRAD_OP": "false", "2": "false"}

DEEPSPEED_KEYS: dict[str, str] = {
    "zero_stage": "zero_optimization.stage",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "gradient_clipping",
    "offload_optimizer_device": "zero_optimization.offload_optimizer.device",
    "offload_optimizer_nvme_path": "zero_optimization.offload_optimizer.nvme_path",
    "offload_param_device": "zero_optimization.offload_param.device",
    "offload_param_nvme_path": "zero_optimization.offload_param.nvme_path",
    "zero3_save_16bit_model": "zero_optimization.stage3_gather_16bit_weights_on_model_save",
}
"""Accelerate's key -> DeepSpeed's. Source: accelerate 1.15, utils/dataclasses.py, DeepSpeedPlugin.__post_init__."""

DEEPSPEED_OTHERS = ("deepspeed_config_file", "zero3_init_flag", "deepspeed_multinode_launcher", "deepspeed_hostfile")
MULTINODE_LAUNCHERS = ("standard", "pdsh", "openmpi", "mvapich", "mpich", "nossh", "slurm")


def parse_fsdp(document: Document) -> Fsdp:
    """Returns what a file's fsdp_config says.

    Raises:
        ConfigError: FSDP1 (with what to write for FSDP2), unknown keys, values that cannot be honoured.
    """
    block = _block(document, "fsdp_config")
    names = {name if name.startswith("fsdp_") else f"fsdp_{name}": name for name in block}
    values = FSDP_DEFAULTS | {full: block[name] for full, name in names.items()}
    problems: list[Problem] = []

    def problem(full: str, what: str, allowed: str | None = None, fix: str | None = None) -> None:
        name = names.get(full, full)
        problems.append(Problem(what, document.where(("fsdp_config", name)), f"fsdp_config.{name}", allowed, fix))

    if values["fsdp_version"] != 2:
        raise ConfigError(_refused_fsdp1(document, values, names))
    for full in names:
        if full not in FSDP_DEFAULTS and full not in FSDP_INERT:
            near = suggest(full, [*FSDP_DEFAULTS, *FSDP_INERT])
            problem(full, "FSDP2 has no such key" + (f"; did you mean {near!r}?" if near else ""))
        elif full in FSDP_INERT and values[full] not in FSDP_INERT[full]:
            problem(full, f"{values[full]!r} cannot be honoured", allowed=f"leave it out, or {FSDP_INERT[full][0]!r}")
    for full, default in FSDP_DEFAULTS.items():
        if isinstance(default, bool) and not isinstance(values[full], bool):
            problem(full, f"{values[full]!r} is not possible", allowed="true, false")
    policy, classes, smallest = (values[f"fsdp_{name}"] for name in ("auto_wrap_policy", "transformer_layer_cls_to_wrap", "min_num_params"))
    if policy not in WRAPS:
        problem("fsdp_auto_wrap_policy", f"{policy!r} is not possible", allowed=", ".join(WRAPS))
    if not isinstance(smallest, int) or isinstance(smallest, bool) or smallest < 0:
        problem("fsdp_min_num_params", f"{smallest!r} is not a number of parameters")
    elif policy == "SIZE_BASED_WRAP" and not smallest:
        problem("fsdp_min_num_params", "SIZE_BASED_WRAP needs the smallest module that is sharded by itself", fix="fsdp_min_num_params: 1000000")
    if problems:
        raise ConfigError(*problems)
    return Fsdp(
        reshard_after_forward=values["fsdp_reshard_after_forward"],
        offload=values["fsdp_offload_params"],
        wrap=WRAPS[policy],
        layer_classes=tuple(name.strip() for name in str(classes or "").split(",") if name.strip()),
        min_num_params=smallest,
        activation_checkpointing=values["fsdp_activation_checkpointing"],
        cpu_ram_efficient_loading=values["fsdp_cpu_ram_efficient_loading"],
    )


def parse_deepspeed(document: Document) -> DeepSpeed:
    """Returns what a file's deepspeed_config says, in DeepSpeed's own keys; a deepspeed_config_file is read, relative to the YAML file.

    Raises:
        ConfigError: unknown keys, keys beside a deepspeed_config_file that belong into it, or as check_deepspeed.
    """
    block = _block(document, "deepspeed_config")
    problems: list[Problem] = []

    def problem(name: str, what: str, allowed: str | None = None, fix: str | None = None) -> None:
        problems.append(Problem(what, document.where(("deepspeed_config", name)), f"deepspeed_config.{name}", allowed, fix))

    for name in block:
        if name not in DEEPSPEED_KEYS and name not in DEEPSPEED_OTHERS:
            near = suggest(name, [*DEEPSPEED_KEYS, *DEEPSPEED_OTHERS])
            problem(name, "no such key in a deepspeed_config" + (f"; did you mean {near!r}?" if near else ""))
    launcher = block.get("deepspeed_multinode_launcher")
    if launcher not in (None, *MULTINODE_LAUNCHERS):
        problem("deepspeed_multinode_launcher", f"{launcher!r} is not possible", allowed=", ".join(MULTINODE_LAUNCHERS))
    elif launcher not in (None, "standard"):
        problem("deepspeed_multinode_launcher", f"{launcher!r} starts the nodes by itself", allowed="standard", fix="standard: a launcher a node")
    if block.get("deepspeed_hostfile"):
        problem("deepspeed_hostfile", "the nodes are not DeepSpeed's to start", fix="delete it")
    zero3_init = block.get("zero3_init_flag")
    if zero3_init not in (None, True, False):
        problem("zero3_init_flag", f"{zero3_init!r} is not possible", allowed="true, false")
    file = block.get("deepspeed_config_file")
    if file is not None:
        for name in DEEPSPEED_KEYS:
            if name in block:
                problem(
                    name, f"stands beside deepspeed_config_file, and Accelerate refuses both ({file})", fix=f"{DEEPSPEED_KEYS[name]} in that file"
                )
        if "mixed_precision" in document.values:
            what = f"stands beside deepspeed_config_file, and Accelerate refuses both ({file})"
            problems.append(Problem(what, document.where(("mixed_precision",)), "mixed_precision", fix="bf16: {enabled: true} in that file"))
    if problems:
        raise ConfigError(*problems)
    if file is not None:
        found = read_deepspeed(_beside(document, str(file)))
        return DeepSpeed(found.config, found.where, {}, zero3_init, launcher)
    config: dict[str, Any] = {"zero_optimization": {"stage": 2}}  # DeepSpeedPlugin's own default
    places = {}
    for name, key in DEEPSPEED_KEYS.items():
        if block.get(name) is not None:
            _set(config, key, "none" if block[name] == "null" else block[name])
            places[key] = (document.where(("deepspeed_config", name)), f"deepspeed_config.{name}")
    deepspeed = DeepSpeed(config, str(document.path), places, zero3_init, launcher)
    check_deepspeed(deepspeed)
    return deepspeed


def _refused_fsdp1(document: Document, values: Mapping[str, Any], names: Mapping[str, str]) -> Problem:
    """Returns the refusal of an FSDP1 file, with the lines that say the same for FSDP2."""
    said = values.get("fsdp_sharding_strategy") or values["fsdp_reshard_after_forward"]
    reshard = "true" if said is True else _FSDP1_RESHARD.get(str(said))
    lines = f"fsdp_version: 2 and fsdp_reshard_after_forward: {reshard}, without fsdp_sharding_strategy, fsdp_use_orig_params, fsdp_backward_prefetch"
    if reshard is None:
        lines = "distributed_type: MULTI_GPU for NO_SHARD; HYBRID_SHARD has no engine here"
    version = f"fsdp_version {values['fsdp_version']}" if "fsdp_version" in names else "without fsdp_version it is FSDP1, which"
    return Problem(
        f"{version} has no engine here",
        document.where(("fsdp_config", names.get("fsdp_version", ""))),
        "fsdp_config.fsdp_version",
        allowed="2",
        fix=lines,
    )


def _beside(document: Document, file: str) -> Path:
    """Returns a deepspeed_config_file as a path: relative to the YAML file, else (as Accelerate takes it) to where the person stands."""
    path = Path(file).expanduser()
    beside = document.path.parent / path
    if beside.is_file() or path.is_file():
        return beside if beside.is_file() else path
    where = document.where(("deepspeed_config", "deepspeed_config_file"))
    raise ConfigError(Problem(f"there is no {file}", where, "deepspeed_config.deepspeed_config_file", allowed=f"a path relative to {document.path}"))


def _block(document: Document, name: str) -> Mapping[str, Any]:
    block = document.values.get(name) or {}
    if not isinstance(block, dict):
        raise ConfigError(Problem(f"{block!r} stands where a block of keys is expected", document.where((name,)), name))
    return block


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *blocks, name = key.split(".")
    for block in blocks:
        config = config.setdefault(block, {})
    config[name] = value
