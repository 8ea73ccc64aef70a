"""What FSDP2 and DeepSpeed are told: the two blocks of a strategy that shard a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Offload = Literal["cpu", "nvme"]
ZeroStage = Literal[0, 1, 2, 3]


@dataclass(frozen=True)
class Fsdp:
    """torch's fully_shard, as an Accelerate file's `fsdp_config` (fsdp_version: 2) says it.

    Args:
        reshard_after_forward: free a layer's whole weights after its forward pass (ZeRO-3); False keeps them until backward (ZeRO-2).
        offload: parameters, gradients and optimizer state of a rank live in host memory.
        wrap: what is sharded as one unit, besides the root: the model's repeated layers, any module of `min_num_params`, or nothing.
        layer_classes: class names of the layers; empty: those the library names for the model (`_no_split_modules`), else found.
        min_num_params: smallest module that becomes a unit, with wrap `size`.
        activation_checkpointing: recompute each unit's activations in the backward pass.
        cpu_ram_efficient_loading: for scripts: only rank 0 reads the weights, the others receive their shards. In an experiment every rank
            reads them into host memory, keeps its part on its device, and frees the rest.
    """

    reshard_after_forward: bool = True
    offload: bool = False
    wrap: Literal["layers", "size", "root"] = "layers"
    layer_classes: tuple[str, ...] = ()
    min_num_params: int = 0
    activation_checkpointing: bool = False
    cpu_ram_efficient_loading: bool = True


@dataclass(frozen=True)
class DeepSpeed:
    """A DeepSpeed configuration as it was written, "auto" and all; launch.config.deepspeed.resolve_deepspeed makes every value a number.

    Args:
        config: DeepSpeed's own keys.
        where: the JSON file, or the YAML file whose deepspeed_config was translated into `config`.
        places: dotted key of `config` -> (`file:line`, the key there), where it was translated from another file's keys.
        zero3_init: build the model sharded from the start (stage 3); None: yes.
        multinode_launcher: `standard` (a launcher a node, as Slurm and torchrun do); the others need DeepSpeed's own ssh or pdsh.
    """

    config: Mapping[str, Any]
    where: str
    places: Mapping[str, tuple[str, str]]
    zero3_init: bool | None = None
    multinode_launcher: str | None = None

    @property
    def stage(self) -> ZeroStage:
        """ZeRO's stage: 1 shards optimizer state, 2 gradients too, 3 parameters too."""
        stage = self.zero.get("stage", 0)
        assert stage in (0, 1, 2, 3), stage  # checked when it was read
        return stage  # type: ignore[no-any-return]

    @property
    def offload_optimizer(self) -> Offload | None:
        """Where a rank's optimizer state lives, None: on its device."""
        return _device(self.zero.get("offload_optimizer"))

    @property
    def offload_param(self) -> Offload | None:
        """Where a rank's parameters live (stage 3), None: on its device."""
        return _device(self.zero.get("offload_param"))

    @property
    def zero(self) -> Mapping[str, Any]:
        """The block zero_optimization, empty where there is none."""
        zero: Mapping[str, Any] = self.config.get("zero_optimization") or {}
        return zero

    def place(self, key: str) -> tuple[str, str]:
        """Returns the place where a dotted key was written, or the block around it, and the name that it has there."""
        around = key
        while around and around not in self.places:
            around = around.rpartition(".")[0]
        return self.places.get(around, (self.where, key))


def _device(block: Any) -> Offload | None:
    device = block.get("device") if isinstance(block, Mapping) else None
    return device if device in ("cpu", "nvme") else None
