"""The processes that train together: the Accelerator, precision and the few collectives the loop needs.

Engine is also the engine of one process and of DDP, where every rank holds the whole model; trainers/engines/ has those that divide it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from launch.config.errors import ConfigError, FullrankError, Problem
from launch.config.experiment import Precision
from launch.config.resolve import BatchArithmetic
from launch.config.strategy import Strategy
from trainers.checkpoints.named_state import OptimizerState, named_optimizer_state, restore_optimizer_state
from trainers.checkpoints.restoring import SavedWeights, restore_weights
from trainers.hardware import ACCELERATE_PRECISION, choose_device, prepare_arithmetic, refuse_precision
from trainers.host_memory import keep_freed_memory
from trainers.told import refuse_contradictions
from trainers.world import OTHER_WORLDS, World

BuildOptimizer = Callable[[nn.Module], Optimizer]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds of model and optimizer, in whole tensors, by parameter name: the same under every engine.

    Args:
        weights: every parameter and buffer on rank 0, else empty.
        optimizer: this rank's share of the optimizer state; the shares of all ranks are the whole of it.
        is_copy: the tensors are in host memory, and training does not change them.
    """

    weights: dict[str, Tensor]
    optimizer: OptimizerState
    is_copy: bool


class Engine:
    """One process's view of the training group: one process alone, or DDP. Every method that says so must be called by all ranks."""

    name = "ddp"
    divides_parameters = False
    """Whether a rank holds a part of the parameters: then all ranks must make equally many forward passes, together."""
    divides_state = False
    """Whether a rank holds a part of the optimizer's state: then every rank writes its share of a checkpoint."""
    is_unchanged_by_passes = True
    """Whether a forward and backward pass whose gradients are dropped leaves everything as it was."""
    can_thaw = True
    """Whether parameters can begin to be trained while the training goes on (see thaw)."""

    def __init__(self, world: World, strategy: Strategy | None, precision: Precision) -> None:
        """Joins the process group. Every rank must call this.

        Raises:
            ConfigError: the strategy and the processes that were found differ, or the precision cannot run here.
        """
        refuse_contradictions(world, strategy)
        device = choose_device(strategy)
        if device == "cpu":
            keep_freed_memory()
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # transformers imports DeepSpeed to save a model, which would warn of a GPU it misses
        self.notes = refuse_precision(precision, device)
        prepare_arithmetic(precision)
        if world.world_size == 1:
            for name in ("LOCAL_RANK", *OTHER_WORLDS):  # any of them makes Accelerate open a process group for one
                os.environ.pop(name, None)
        self.world, self.precision, self.strategy = world, precision, strategy
        self.strategy_file = str(Path(strategy.where).absolute()) if strategy and strategy.where and Path(strategy.where).is_file() else None
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=ACCELERATE_PRECISION[precision],
            step_scheduler_with_optimizer=False,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # given, so that no variable divides our gradients
            kwargs_handlers=[InitProcessGroupKwargs(backend=self.backend(device)), DistributedDataParallelKwargs(gradient_as_bucket_view=True)]
            if world.world_size > 1
            else None,
        )
        if self.accelerator.num_processes != world.world_size:
            raise RuntimeError(
                f"{world.world_size} processes were started but Accelerate sees {self.accelerator.num_processes}: they would not be in step"
            )
        self.device = self.accelerator.device
        self._control: Any = torch.distributed.new_group(backend="gloo") if device == "cuda" and world.world_size > 1 else None
        self._saving: Any = None

    def backend(self, device: str) -> str:
        """Returns what torch.distributed talks over."""
        return "gloo" if device == "cpu" else "nccl"

    def prepare(self, model: nn.Module, build_optimizer: BuildOptimizer) -> tuple[nn.Module, Any]:
        """Returns the model as every rank trains it, in step, and its optimizer. Every rank must call this."""
        model.to(self.device)
        optimizer = build_optimizer(model)
        if self.precision in ("fp16", "fp8"):
            prepared: tuple[nn.Module, Any] = self.accelerator.prepare(model, optimizer)
            return prepared
        # Elsewhere Accelerate's optimizer adds nothing but a search for a library on the disk, in each step (is_lomo_available in optimizer.py).
        return self.accelerator.prepare(model), optimizer

    def use(self, arithmetic: BatchArithmetic) -> None:
        """Prepares from here on for another division of the global batch."""

    def discard(self) -> None:
        """Lets go of what was prepared: its owner does too, and prepares anew."""

    def thaw(self, model: nn.Module, parameters: Iterable[Tensor]) -> nn.Module:
        """Lets parameters be trained from the next step on, and returns the model to call instead. Every rank must call this, between two steps.

        The optimizer must hold them from the start: it skips what has no gradient, so that groups, schedule and saved state keep their
        form. DDP arranges its exchange when it is built, so it is built again here, and settle_reduction_order belongs after it as after a
        start. FSDP2 looks at each pass which parameters are trained. DeepSpeed divides at the start what is trained then (`can_thaw`).
        """
        assert self.can_thaw, self.describe()
        for parameter in parameters:
            parameter.requires_grad_(True)
        if not isinstance(model, DistributedDataParallel):
            return model
        self.accelerator._models.clear()  # of the old wrapper, whose hooks go with it
        return self.accelerator.prepare_model(model.module)

    def own_weights(self, model: nn.Module, optimizer: Any) -> list[Tensor]:
        """Returns what this rank holds of the weights that the optimizer moves, float32, in the optimizer's own memory."""
        return [parameter.detach() for group in optimizer.param_groups for parameter in group["params"]]

    def spread_weights(self, model: nn.Module) -> None:
        """Brings what was written into own_weights to where the model computes with it. Every rank must call this."""

    def describe(self) -> str:
        """Returns what keeps the processes in step, in words."""
        return "1 process" if self.world.world_size == 1 else f"DDP over {self.world.world_size} processes"

    def parameter_bytes(self, model: nn.Module) -> int:
        """Returns how much memory this rank's parameters take."""
        return sum(local_bytes(parameter) for parameter in model.parameters())

    def unwrap(self, model: nn.Module) -> nn.Module:
        """Returns the library's own module inside the wrapper (Accelerate's unwrap_model would import DeepSpeed to look for its own)."""
        return model.module if isinstance(model, DistributedDataParallel) else model

    def evaluated(self, model: nn.Module) -> nn.Module:
        """Returns the module to call in an evaluation, with rank 0's buffers, as a checkpoint has them. Every rank must call this."""
        module = self.unwrap(model)
        self.share_buffers(module)
        return module

    def exported(self, model: nn.Module) -> nn.Module:
        """Returns the module that can write whole weights in the library's format; its own weights may be missing."""
        return self.unwrap(model)

    def share_buffers(self, module: nn.Module) -> None:
        """Gives every rank the buffers of rank 0 (BatchNorm's statistics), as DDP does before each forward pass. Every rank must call this."""
        if self.world.world_size > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def without_gradients(self) -> AbstractContextManager[None]:
        """Returns the context of an evaluation."""
        return torch.inference_mode()

    def accumulating(self, model: nn.Module, is_last: bool) -> AbstractContextManager[None]:
        """Returns the context of a micro-batch: gradients are exchanged in the last one of a step only."""
        return nullcontext() if is_last or self.world.world_size == 1 else self.accelerator.no_sync(model)

    def backward(self, loss_sum: Tensor, global_count: float) -> None:
        """Adds this rank's gradients of `loss_sum / global_count`; DDP's mean over ranks is undone here."""
        self.accelerator.backward(loss_sum * (self.world.world_size / global_count))

    def take_step(self, model: nn.Module, optimizer: Any, max_norm: float | None) -> Tensor:
        """Clips the gradients to `max_norm`, lets the optimizer move the weights, and forgets the gradients. Every rank must call this.

        Returns:
            The norm of the whole gradient over all ranks before clipping, float32 [].
        """
        self.accelerator.unscale_gradients()  # of fp16
        norm = clip_gradients(model.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def snapshot(self, model: nn.Module, optimizer: Any) -> Snapshot | None:
        """Returns what a checkpoint holds, or None on a rank that has no part in saving. Every rank must call this."""
        if not self.world.is_main:
            return None
        module = self.unwrap(model)
        return Snapshot(dict(module.state_dict()), named_optimizer_state(module, optimizer), is_copy=False)

    def whole_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Returns every weight whole on rank 0, elsewhere {}. Every rank must call this."""
        return dict(self.unwrap(model).state_dict()) if self.world.is_main else {}

    def restore_weights(self, model: nn.Module, saved: SavedWeights) -> None:
        """Replaces the model's weights by saved ones. Every rank must call this."""
        restore_weights(saved, self.unwrap(model))

    def restore_optimizer(self, model: nn.Module, optimizer: Any, saved: OptimizerState) -> None:
        """Replaces the optimizer's state by a saved one. Every rank must call this."""
        restore_optimizer_state(self.unwrap(model), optimizer, saved)

    @property
    def scaler(self) -> Any:
        """What scales the loss of fp16, with its state_dict; else None."""
        return self.accelerator.scaler

    def gather_saved(self, value: Any) -> list[Any]:
        """Returns every rank's value, by rank; for the threads that write a checkpoint, beside training. All of them must call this."""
        if self.world.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world.world_size
        torch.distributed.all_gather_object(values, value, group=self._saving)
        return values

    def refuse_unless_in_step(self, model: nn.Module, step: int) -> None:
        """Compares one number for all of a rank's whole parameters over the ranks. Every rank must call this, now and then.

        Raises:
            FullrankError: they differ; names the ranks.
        """
        if self.world.world_size == 1:
            return
        sums = self.gather_objects((step, self.checksum(model)))
        odd = [rank for rank, value in enumerate(sums) if value != sums[0]]
        if odd:
            ranks = ", ".join(map(str, odd[:4]))
            what = f"after step {step} the parameters of rank {ranks} are not those of rank 0: the ranks train different models"
            fix = "fullrank resume goes on from before; if it comes back, a GPU or a link is broken, or own code draws random weights"
            raise FullrankError(Problem(what, fix=fix))

    def checksum(self, model: nn.Module) -> float:
        """Returns a number that equal parameters share; all of what ranks must hold alike goes into it."""
        with torch.no_grad():
            sums = [parameter.detach().sum(dtype=torch.float64) for parameter in model.parameters() if not is_divided(parameter)]
            return float(torch.stack(sums).sum()) if sums else 0.0

    def sum_over_ranks(self, values: Sequence[float | Tensor]) -> list[float]:
        """Returns the sums of each value over all ranks, in float64. Every rank must call this.

        It goes over the host (gloo), so that numbers known there do not make the host wait for the GPU.
        """
        own = [float(value) for value in values]
        if self.world.world_size == 1:
            return own
        sums = torch.tensor(own, dtype=torch.float64)
        torch.distributed.all_reduce(sums, group=self._control)
        return sums.tolist()

    def gather_objects(self, value: Any) -> list[Any]:
        """Returns every rank's value, by rank. Every rank must call this."""
        if self.world.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def from_main(self, value: Any) -> Any:
        """Returns rank 0's value on every rank. Every rank must call this."""
        if self.world.world_size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        """Returns when every rank is here. Every rank must call this."""
        self.accelerator.wait_for_everyone()

    def refuse_unless_equal(self, facts: dict[str, str]) -> None:
        """Compares facts that must be the same on every rank. Every rank must call this.

        Raises:
            ConfigError: they differ; names the fact and the ranks.
        """
        everywhere = self.gather_objects(facts)
        problems = []
        for name in facts:
            values = [rank_facts[name] for rank_facts in everywhere]
            if len(set(values)) > 1:
                odd = [f"rank {rank}: {value}" for rank, value in enumerate(values) if value != values[0]]
                problems.append(
                    Problem(
                        f"the ranks differ in {name}: rank 0: {values[0]}; {'; '.join(odd[:4])}",
                        fix="start every rank with the same command and environment",
                    )
                )
        if problems:
            raise ConfigError(*problems)

    def close(self) -> None:
        """Leaves the process group. Every rank must call this, after a training that ended well."""
        self.accelerator.end_training()


def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Tensor:
    """Scales the gradients down to a norm of `max_norm` where theirs is larger, and returns theirs, float32 [].

    On a CPU gradients that are within it are left alone; a GPU multiplies them by 1, as torch's clip_grad_norm_ does, and waits for no answer.
    """
    parameters = list(parameters)
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if max_norm is not None and (norm.device.type != "cpu" or norm > max_norm):
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def local_bytes(tensor: Tensor) -> int:
    """Returns the bytes of what this rank holds of a tensor."""
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.numel() * local.element_size()


def is_divided(tensor: Tensor) -> bool:
    """Returns whether this rank holds a part of a tensor that others hold the rest of: as a DTensor, or as ZeRO-3 does."""
    return isinstance(tensor, DTensor) or hasattr(tensor, "ds_id")
