"""One small experiment and a strategy file for each engine, on the CPU, for any number of processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny import tiny_bert, tiny_sentences

SGD = ("optimizer.name=sgd", "optimizer.lr=0.5", "optimizer.momentum=0.9", "train.gradient_clip_norm=0.05", "schedule.name=constant")
ADAMW = ("optimizer.name=adamw", "optimizer.lr=1e-3", "optimizer.weight_decay=0.1")

_ZERO = {"reduce_bucket_size": 100_000, "allgather_bucket_size": 100_000}
_ZERO3 = _ZERO | {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 0}
_HOST = {"device": "cpu", "pin_memory": False}
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"distributed_type": "MULTI_CPU", "use_cpu": True},
    "fsdp2": {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}},
    "zero1": {"zero_optimization": _ZERO | {"stage": 1}},
    "zero2": {"zero_optimization": _ZERO | {"stage": 2}},
    "zero3": {"zero_optimization": _ZERO3},
    "zero3_offload": {"zero_optimization": _ZERO3 | {"offload_optimizer": _HOST, "offload_param": _HOST}},
}
"""By name: what an Accelerate file says, or a DeepSpeed file. Parameters of any size are divided: those of a test are all small."""


def write_experiment(folder: Path, **sections: Any) -> Path:
    """Writes tiny.yaml and its model and data into `folder`: ragged sentences whose number is no multiple of any batch; fp32, no dropout."""
    values: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.0},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32},
        "data": {
            "source": str(tiny_sentences(folder / "sentences.tsv", 203)),
            "splits": {"validation": None},
            "validation_fraction": 0.2,
            "num_workers": 0,
        },
        "train": {"duration": "20 steps", "global_batch_size": 24, "precision": "fp32"},
        "optimizer": {"lr": 1e-3},
        "evaluate": {"every": "10 steps", "metric": "accuracy"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values | sections), encoding="utf-8")
    return path


def write_strategies(folder: Path) -> None:
    """Writes NAME.yaml for every strategy of the table."""
    for name, says in STRATEGIES.items():
        values = {"compute_environment": "LOCAL_MACHINE", "gpu_ids": "-1"} | says
        if "zero_optimization" in says:
            (folder / f"{name}.json").write_text(json.dumps(says), encoding="utf-8")
            block = {"deepspeed_config_file": str(folder / f"{name}.json"), "zero3_init_flag": says["zero_optimization"]["stage"] == 3}
            values = {"compute_environment": "LOCAL_MACHINE", "gpu_ids": "-1", "distributed_type": "DEEPSPEED", "deepspeed_config": block}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def told(folder: Path, strategy: str | None) -> list[str]:
    """Returns the words that tell a rank a strategy of the table; another one (or none) needs no file."""
    return ["--strategy", str(folder / f"{strategy}.yaml")] if strategy in STRATEGIES else []
