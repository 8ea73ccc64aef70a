"""FSDP2: parameters, gradients and optimizer state divided over the ranks by torch's fully_shard, on GPUs and on CPUs alike.

Accelerate's plugin does not shard on a CPU and says nothing, so the sharding is done here: what is proved on CPUs is what GPUs run.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment, Precision
from launch.config.resolve import BatchArithmetic
from launch.config.sharding import Fsdp
from launch.config.strategy import Strategy
from trainers.checkpoints.named_state import gather, like_parameter, named_optimizer_state, whole_state_dict
from trainers.checkpoints.restoring import SavedWeights
from trainers.engine import BuildOptimizer, Engine, Snapshot
from trainers.group_of_one import open_group_of_one
from trainers.models.batch_norm import widen_batch_norm
from trainers.models.skeleton import without_weights
from trainers.world import World


class Fsdp2Engine(Engine):
    """Every parameter is divided along its first dimension; a layer is whole only while it computes."""

    name = "fsdp2"
    divides_parameters = divides_state = True

    def __init__(self, world: World, strategy: Strategy, precision: Precision, experiment: Experiment, arithmetic: BatchArithmetic) -> None:
        """See Engine. One process makes a group of one, and runs the same code."""
        assert strategy.fsdp is not None, strategy
        self._options: Fsdp = strategy.fsdp
        if precision in ("fp16", "fp8"):
            what = f"{precision} is not possible under FSDP2: its scaling would have to know of the shards"
            raise ConfigError(Problem(what, where=strategy.where, key="train.precision", allowed="fp32, tf32, bf16", fix="train.precision=bf16"))
        super().__init__(world, strategy, precision)
        if world.world_size == 1:
            open_group_of_one(self.backend(self.device.type))
        self._saving = torch.distributed.new_group(backend="gloo")
        self._skeleton: nn.Module | None = None

    def backend(self, device: str) -> str:
        return "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl" if self._options.offload else "nccl"

    def prepare(self, model: nn.Module, build_optimizer: BuildOptimizer) -> tuple[nn.Module, Any]:
        """Divides the model's layers, then what is left, and builds the optimizer over the divided parameters. Every rank must call this.

        Raises:
            RuntimeError: a parameter was not divided.
        """
        self._skeleton = without_weights(model)
        mesh = init_device_mesh(self.device.type, (self.world.world_size,))
        options: dict[str, Any] = {
            "mesh": mesh,
            "reshard_after_forward": self._options.reshard_after_forward,
            "mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            if self.precision == "bf16"
            else MixedPrecisionPolicy(),
            "offload_policy": CPUOffloadPolicy() if self._options.offload and self.device.type == "cuda" else OffloadPolicy(),
        }
        for unit in find_units(model, self._options):
            if self._options.activation_checkpointing:
                unit.forward = partial(checkpoint, unit.forward, use_reentrant=False)
            fully_shard(unit, **options)
        if self.precision == "bf16":
            widen_batch_norm(model)
            model.forward = torch.autocast(self.device.type, torch.bfloat16)(model.forward)
        fully_shard(model, **options)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # sums, as our losses are,
                module.set_force_sum_reduction_for_comms(True)  # by an operation that gloo has too
        model.to(self.device)  # buffers; the parameters are there
        undivided = [name for name, parameter in model.named_parameters() if not _is_divided_by(parameter, self.world.world_size)]
        if undivided:
            raise RuntimeError(f"FSDP2 left {len(undivided)} parameters undivided, e.g. {undivided[0]}: training would not be what the strategy says")
        return model, build_optimizer(model)

    def own_weights(self, model: nn.Module, optimizer: Any) -> list[Tensor]:
        return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in super().own_weights(model, optimizer)]

    def spread_weights(self, model: nn.Module) -> None:
        """Frees what an evaluation has gathered and left: the root's weights, which the next pass would take for new ones."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def describe(self) -> str:
        offload = ", offloaded to host memory" if self._options.offload else ""
        return f"FSDP2 over {self.world.world_size} process{'es' if self.world.world_size > 1 else ''}{offload}"

    def exported(self, model: nn.Module) -> nn.Module:
        assert self._skeleton is not None
        return self._skeleton

    def without_gradients(self) -> AbstractContextManager[None]:
        return torch.no_grad()  # the gathered weights are kept from pass to pass: they may not become inference tensors

    def accumulating(self, model: nn.Module, is_last: bool) -> AbstractContextManager[None]:
        """Gradients are divided after every micro-batch: whole ones would take the memory that sharding saves."""
        return nullcontext()

    def backward(self, loss_sum: Tensor, global_count: float) -> None:
        (loss_sum / global_count).backward()

    def take_step(self, model: nn.Module, optimizer: Any, max_norm: float | None) -> Tensor:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf") if max_norm is None else max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return gather(norm)

    def snapshot(self, model: nn.Module, optimizer: Any) -> Snapshot | None:
        """Gathers one tensor at a time; each rank keeps every world-size-th parameter's state, rank 0 the weights too."""
        rank, world_size = self.world.rank, self.world.world_size
        return Snapshot(
            whole_state_dict(model, self.world.is_main),
            named_optimizer_state(model, optimizer, gather, lambda number: number % world_size == rank, to_host=True),
            is_copy=True,
        )

    def whole_weights(self, model: nn.Module) -> dict[str, Tensor]:
        return whole_state_dict(model, self.world.is_main)

    def restore_weights(self, model: nn.Module, saved: SavedWeights) -> None:
        """Every rank reads its own part of each tensor; nothing is communicated."""
        targets = model.state_dict()
        with torch.no_grad():
            for name, tensor in saved.items():
                target = targets.pop(name)
                target.copy_(like_parameter(tensor, target))
        if saved.is_part:
            return
        tied = {id_of(parameter) for name, parameter in model.state_dict().items() if name not in targets}
        missing = [name for name, target in targets.items() if id_of(target) not in tied]
        if missing:
            raise RuntimeError(f"{saved.file} has no {missing[0]}")

    def close(self) -> None:
        super().close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def find_units(model: nn.Module, options: Fsdp) -> list[nn.Module]:
    """Returns the modules that are sharded as a unit each, besides the root: the repeated layers, as far as they do not hold one another.

    Layers are those of the strategy's class names, else of the names that the library gives (`_no_split_modules`), else the members
    of every nn.ModuleList, else the parts of every nn.Sequential. A module whose weights are tied to those of another part (embeddings, to a
    head of words) is no unit: the root holds both.
    """
    if options.wrap == "root":
        return []
    modules = [module for module in model.modules() if module is not model and any(True for _ in module.parameters())]
    if options.wrap == "size":
        chosen = [module for module in modules if sum(p.numel() for p in module.parameters()) >= options.min_num_params]
        chosen = [module for module in chosen if not any(other is not module and other in chosen for other in module.modules())]
        return _without_ties(model, chosen)
    names = set(options.layer_classes or getattr(model, "_no_split_modules", None) or ())
    chosen = [module for module in modules if type(module).__name__ in names]
    if options.layer_classes and not chosen:
        raise ConfigError(Problem(f"the model has no module of class {', '.join(sorted(names))}", key="fsdp_transformer_layer_cls_to_wrap"))
    for kind in (nn.ModuleList, nn.Sequential):
        if not chosen:
            chosen = [child for module in model.modules() if isinstance(module, kind) for child in module if any(True for _ in child.parameters())]
    inner = {id(inside) for module in chosen for inside in module.modules() if inside is not module}
    return _without_ties(model, [module for module in chosen if id(module) not in inner])


def _without_ties(model: nn.Module, chosen: list[nn.Module]) -> list[nn.Module]:
    """Returns the modules that hold every use of each of their parameters."""
    uses = _count_uses(model)
    return [module for module in chosen if all(uses[key] == count for key, count in _count_uses(module).items())]


def _count_uses(module: nn.Module) -> Counter[int]:
    """Returns under how many names each parameter stands in a module, by its id."""
    return Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))


def id_of(tensor: Tensor) -> int:
    """Returns what tied tensors of a state_dict share."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).data_ptr()


def _is_divided_by(parameter: Tensor, world_size: int) -> bool:
    return isinstance(parameter, DTensor) and parameter.device_mesh.size() == world_size and parameter.placements[0].is_shard()
