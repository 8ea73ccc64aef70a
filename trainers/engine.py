"""The processes that train together: the Accelerator, the strategy, precision and the few collectives the loop needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Precision
from launch.config.strategy import Strategy
from trainers.world import OTHER_WORLDS, World

_ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def choose_device(strategy: Strategy | None) -> str:
    """Returns `cpu` or `cuda`: what the strategy or Accelerate's environment says, else what there is.

    Raises:
        ConfigError: GPUs are asked for, or visibly there, and torch cannot use them.
    """
    if (strategy and strategy.use_cpu) or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    asked = strategy is not None and strategy.use_cpu is False and strategy.where is not None
    if asked or os.path.exists("/proc/driver/nvidia/version"):
        why = f"the strategy {strategy.where} is for GPUs" if asked and strategy else "this machine has an NVIDIA driver"
        what = f"{why}, but torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU it can use"
        raise ConfigError(
            Problem(what, fix="--strategy cpu to train on the CPU on purpose; otherwise compare the driver's CUDA version with torch's")
        )
    return "cpu"


def choose_precision(experiment: Precision | None, strategy: Strategy | None) -> Precision:
    """Returns the experiment's precision, else the strategy's, else what `accelerate launch` was told, else fp32."""
    told = {"no": "fp32"}.get(os.environ.get("ACCELERATE_MIXED_PRECISION", ""), os.environ.get("ACCELERATE_MIXED_PRECISION"))
    precision = experiment or (strategy.precision if strategy else None) or told or "fp32"
    if precision not in _ACCELERATE_PRECISION:
        raise ConfigError(Problem(f"mixed_precision {precision!r} is not possible", allowed=", ".join(_ACCELERATE_PRECISION)))
    return precision  # type: ignore[return-value]


class Engine:
    """One process's view of the training group. Every method that says so must be called by all ranks."""

    def __init__(self, world: World, strategy: Strategy | None, precision: Precision) -> None:
        """Joins the process group. Every rank must call this.

        Raises:
            ConfigError: the strategy and the processes that were found differ, or the precision cannot run here.
        """
        _refuse_contradictions(world, strategy)
        device = choose_device(strategy)
        if precision == "fp16" and device == "cpu":
            raise ConfigError(Problem("fp16 needs a GPU (loss scaling)", key="train.precision", allowed="fp32, bf16", fix="train.precision=bf16"))
        if world.world_size == 1:
            for name in ("LOCAL_RANK", *OTHER_WORLDS):  # any of them makes Accelerate open a process group for one
                os.environ.pop(name, None)
        self.world, self.precision = world, precision
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=_ACCELERATE_PRECISION[precision],
            step_scheduler_with_optimizer=False,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # given, so that no variable divides our gradients
            kwargs_handlers=[
                InitProcessGroupKwargs(backend="gloo" if device == "cpu" else "nccl"),
                DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            ]
            if world.world_size > 1
            else None,
        )
        if self.accelerator.num_processes != world.world_size:
            raise RuntimeError(
                f"{world.world_size} processes were started but Accelerate sees {self.accelerator.num_processes}: they would not be in step"
            )
        self.device = self.accelerator.device
        self._control: Any = torch.distributed.new_group(backend="gloo") if device == "cuda" and world.world_size > 1 else None

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Returns the model as every rank trains it, in step, and its optimizer. Every rank must call this."""
        prepared: tuple[nn.Module, Optimizer] = self.accelerator.prepare(model, optimizer)
        return prepared

    def unwrap(self, model: nn.Module) -> nn.Module:
        """Returns the library's own module inside the wrapper (Accelerate's unwrap_model would import DeepSpeed to look for its own)."""
        return model.module if isinstance(model, DistributedDataParallel) else model

    @contextmanager
    def accumulating(self, model: nn.Module, is_last: bool) -> Iterator[None]:
        """Gradients are exchanged in the last micro-batch of a step only."""
        if is_last or self.world.world_size == 1:
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def backward(self, loss_sum: Tensor, global_count: float) -> None:
        """Adds this rank's gradients of `loss_sum / global_count`; DDP's mean over ranks is undone here."""
        self.accelerator.backward(loss_sum * (self.world.world_size / global_count))

    def clip(self, model: nn.Module, max_norm: float | None) -> Tensor:
        """Returns the norm of the whole gradient, float32 [], before clipping it to `max_norm`. Every rank must call this."""
        if max_norm is None:
            max_norm = float("inf")
        norm: Tensor = self.accelerator.clip_grad_norm_(model.parameters(), max_norm)
        return norm

    def sum_over_ranks(self, values: Sequence[float | Tensor]) -> list[float]:
        """Returns the sums of each value over all ranks, in float64. Every rank must call this.

        It goes over the host (gloo), so that numbers known there do not make the host wait for the GPU.
        """
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64)
        if self.world.world_size > 1:
            torch.distributed.all_reduce(tensor, group=self._control)
        return [float(value) for value in tensor]

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


def _refuse_contradictions(world: World, strategy: Strategy | None) -> None:
    """What the launcher was told and what train.py was told must be one training."""
    for name, kind in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DEEPSPEED"), ("ACCELERATE_USE_MEGATRON_LM", "MEGATRON_LM")):
        if os.environ.get(name, "").lower() in ("1", "true", "yes"):
            raise ConfigError(
                Problem(f"accelerate was told distributed_type {kind} ({name}), which has no engine here", allowed="NO, MULTI_CPU, MULTI_GPU")
            )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("", "no"):
        what = f"accelerate was told to compile (ACCELERATE_DYNAMO_BACKEND={os.environ['ACCELERATE_DYNAMO_BACKEND']}); that belongs to the experiment"
        raise ConfigError(Problem(what, fix="model.compile=true, without the variable or dynamo_config"))
    if strategy is None or strategy.engine is None:
        return
    nodes, per_node = strategy.num_nodes or 1, strategy.processes_per_node
    if per_node is not None and nodes * per_node != world.world_size:
        what = f"the strategy is for {nodes * per_node} processes, and {world.world_size} were started: training would not be what the file says"
        raise ConfigError(Problem(what, where=strategy.where, fix=f"start {nodes * per_node} processes, or leave --strategy out"))
    if strategy.engine == "single" and world.world_size > 1:
        raise ConfigError(Problem(f"distributed_type NO with {world.world_size} processes would train separate models", where=strategy.where))
