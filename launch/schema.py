"""JSON Schemas of the files a person writes, for editors: made from the models and tables that read them; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from launch.config.accelerate_blocks import FSDP_INERT, WRAPS
from launch.config.cluster import Cluster
from launch.config.durations import Duration
from launch.config.experiment import Experiment
from launch.config.pipeline import PipelineSection
from launch.config.strategy import ACCELERATE_KEYS, ENGINES, INERT, PRECISIONS

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_DEVICE = {"enum": ["none", "cpu", "nvme", None]}
_FSDP_INERT: dict[str, dict[str, Any]] = {
    key: {"enum": list(values), "description": "Nothing else can be honoured."} for key, values in FSDP_INERT.items()
}
FSDP_CONFIG: dict[str, dict[str, Any]] = _FSDP_INERT | {
    "fsdp_version": {"const": 2, "description": "FSDP1 has no engine here."},
    "fsdp_reshard_after_forward": {"type": "boolean", "description": "Free a layer's whole weights after its forward pass; false keeps them."},
    "fsdp_offload_params": {"type": "boolean", "description": "Weights, gradients and optimizer state in host memory."},
    "fsdp_auto_wrap_policy": {"enum": list(WRAPS), "description": "What is sharded as one unit: the model's layers, large modules, or the whole."},
    "fsdp_transformer_layer_cls_to_wrap": {"type": ["string", "null"], "description": "Class names of the layers, with commas. null: found."},
    "fsdp_min_num_params": {"type": "integer", "minimum": 0, "description": "Smallest module that is a unit, with SIZE_BASED_WRAP."},
    "fsdp_activation_checkpointing": {"type": "boolean", "description": "Recompute each unit's activations in the backward pass."},
    "fsdp_cpu_ram_efficient_loading": {"type": "boolean", "description": "Only rank 0 reads the weights."},
}
"""What fullrank reads of fsdp_config (launch.config.accelerate_blocks)."""

DEEPSPEED_CONFIG: dict[str, dict[str, Any]] = {
    "zero_stage": {"enum": [1, 2, 3], "description": "1 divides optimizer state, 2 gradients too, 3 weights too."},
    "gradient_accumulation_steps": {"type": ["integer", "string"], "description": "auto, or what the experiment's batch sizes give."},
    "gradient_clipping": {"type": ["number", "string"], "description": "auto, or the experiment's train.gradient_clip_norm."},
    "offload_optimizer_device": _DEVICE | {"description": "Where optimizer state lives instead of on the GPU."},
    "offload_optimizer_nvme_path": {"type": ["string", "null"], "description": "Folder on a fast local disk, with nvme."},
    "offload_param_device": _DEVICE | {"description": "Where weights live instead of on the GPU (stage 3)."},
    "offload_param_nvme_path": {"type": ["string", "null"], "description": "Folder on a fast local disk, with nvme."},
    "zero3_save_16bit_model": {"type": "boolean", "description": "For stock Accelerate; fullrank writes whole weights itself."},
    "zero3_init_flag": {"type": ["boolean", "null"], "description": "Divide the weights before all are on the device (stage 3). null: yes."},
    "deepspeed_config_file": {"type": "string", "description": "DeepSpeed's own JSON, relative to this file; then the keys above stand in it."},
    "deepspeed_multinode_launcher": {"enum": ["standard", None], "description": "A launcher a node."},
    "deepspeed_hostfile": {"type": "null", "description": "The nodes are not DeepSpeed's to start."},
}
"""What fullrank reads of deepspeed_config (launch.config.accelerate_blocks)."""


def _block(keys: dict[str, dict[str, Any]], description: str) -> dict[str, Any]:
    return {"type": ["object", "null"], "properties": keys, "additionalProperties": False, "description": description}


STRATEGY_KEYS: dict[str, dict[str, Any]] = {
    "distributed_type": {
        "enum": list(ENGINES),
        "default": "NO",
        "description": "What keeps the processes in step. NO: one process; MULTI_GPU, MULTI_CPU: a copy of the model in each (DDP); "
        "FSDP, DEEPSPEED: a model in parts (fsdp_config, deepspeed_config).",
    },
    "mixed_precision": {
        "enum": list(PRECISIONS),
        "description": "Arithmetic of the forward and backward pass, where the experiment's train.precision is null.",
    },
    "use_cpu": {"type": "boolean", "description": "true: train on CPUs. false: on GPUs. Absent: on GPUs where there are some."},
    "num_machines": {"type": ["integer", "null"], "minimum": 1, "description": "Nodes, where --nodes is not given."},
    "num_processes": {
        "type": ["integer", "null"],
        "minimum": 1,
        "description": "Processes on all nodes together, where --processes-per-node is not given; a multiple of num_machines.",
    },
    "main_process_port": {"type": ["integer", "null"], "minimum": 0, "description": "Port where the ranks meet. null: derived from the run's id."},
    "gpu_ids": {
        "anyOf": [{"enum": ["all", None, -1]}, {"type": "string", "pattern": r"^\s*-1\s*(,\s*-1\s*)*$"}],
        "description": "all, or -1 (several times, with commas) for no GPU, which makes `accelerate launch` start processes on a CPU.",
    },
    "deepspeed_config": _block(DEEPSPEED_CONFIG, "What DeepSpeed is told, with distributed_type DEEPSPEED."),
    "fsdp_config": _block(FSDP_CONFIG, "What FSDP2 is told, with distributed_type FSDP."),
    "machine_rank": {"type": "integer", "minimum": 0, "description": "For stock `accelerate launch`; fullrank numbers the nodes itself."},
    "main_process_ip": {"type": ["string", "null"], "description": "For stock `accelerate launch`; fullrank names the first node itself."},
}
"""What fullrank reads of an Accelerate file (launch.config.strategy), beside keys that must say nothing."""


def experiment_schema() -> dict[str, Any]:
    """Returns the schema of an experiment file."""
    return _model_schema(Experiment, "An experiment of fullrank")


def strategy_schema() -> dict[str, Any]:
    """Returns the schema of a strategy: an Accelerate configuration file, with the values that fullrank can honour."""
    inert = {key: {"enum": list(values), "description": "Nothing else can be honoured."} for key, values in INERT.items()}
    others = {key: {"description": "Allowed, and without effect."} for key in ACCELERATE_KEYS}
    rest = {key: schema for key, schema in sorted((others | inert).items()) if key not in STRATEGY_KEYS}
    return {
        "$schema": DIALECT,
        "title": "A strategy of fullrank, in Accelerate's format",
        "type": "object",
        "properties": STRATEGY_KEYS | rest,
        "additionalProperties": False,
    }


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "experiment": experiment_schema,
    "pipeline": lambda: _model_schema(PipelineSection, "A pipeline of fullrank"),
    "strategy": strategy_schema,
    "cluster": lambda: _model_schema(Cluster, "A Slurm site of fullrank"),
}
"""kind of file -> its schema."""


class _Generator(GenerateJsonSchema):
    """Schemas without a title for every key, and with defaults as a person writes them."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def encode_default(self, dft: Any) -> Any:
        return str(dft) if isinstance(dft, Duration) else super().encode_default(dft)


def _model_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    schema: JsonSchemaValue = model.model_json_schema(schema_generator=_Generator)
    # A YAML file holds whole numbers where a float is meant (`weight_decay: 0`), which JSON Schema's "number" allows.
    return {"$schema": DIALECT} | schema | {"title": title}
