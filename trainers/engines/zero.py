"""DeepSpeed's ZeRO 1, 2 and 3, with offload: deepspeed.initialize with the very numbers of deepspeed.json, on GPUs and on CPUs alike.

DeepSpeed is called directly: what Accelerate adds is a second place for batch sizes and clipping. The loss comes as a sum and is divided
once, so its own division by accumulation steps stays off.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from launch.config.deepspeed import DeepSpeedFacts, resolve_deepspeed
from launch.config.errors import ConfigError, Problem, install_words
from launch.config.experiment import Experiment, Precision
from launch.config.resolve import BatchArithmetic
from launch.config.strategy import Strategy
from trainers.checkpoints.named_state import OptimizerState
from trainers.checkpoints.restoring import SavedWeights
from trainers.engine import BuildOptimizer, Engine, Snapshot
from trainers.group_of_one import open_group_of_one
from trainers.models.batch_norm import widen_batch_norm
from trainers.models.skeleton import without_weights
from trainers.world import World

if TYPE_CHECKING:
    from trainers.engines.zero_state import ZeroState

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
_CPU_COLLECTIVES = "deepspeed_shm_comm"
"""DeepSpeed's own all-reduce over shared memory: half a minute of g++ at the first start, and not what GPUs run. gloo does it."""


class ZeroEngine(Engine):
    """DeepSpeed's engine behind ours; the optimizer is the experiment's, its state divided by DeepSpeed."""

    name = "deepspeed"
    divides_state = True
    is_unchanged_by_passes = False
    can_thaw = False

    def __init__(self, world: World, strategy: Strategy, precision: Precision, experiment: Experiment, arithmetic: BatchArithmetic) -> None:
        """See Engine. One process makes a group of one, and runs the same code."""
        assert strategy.deepspeed is not None, strategy
        self.stage = strategy.deepspeed.stage
        self.divides_parameters = self.stage == 3
        self._told = strategy.deepspeed
        if self.stage == 0:
            what = "ZeRO stage 0 divides nothing, and DeepSpeed reports no gradient norm in it"
            raise ConfigError(Problem(what, where=strategy.where, key="zero_optimization.stage", allowed="1, 2, 3", fix="--strategy ddp"))
        if precision == "fp8":
            raise ConfigError(Problem("fp8 is not possible under DeepSpeed here", where=strategy.where, allowed="fp32, tf32, bf16, fp16"))
        self._facts = DeepSpeedFacts(experiment, arithmetic, precision)
        resolve_deepspeed(self._told, self._facts)  # to refuse what contradicts before anything is loaded
        super().__init__(world, strategy, precision)
        if world.world_size == 1:
            open_group_of_one(self.backend(self.device.type))
        self._saving = torch.distributed.new_group(backend="gloo")
        self._skeleton: nn.Module | None = None
        self._state: ZeroState | None = None
        self._wrapped: Any = None

    def prepare(self, model: nn.Module, build_optimizer: BuildOptimizer) -> tuple[nn.Module, Any]:
        """Hands model and optimizer to DeepSpeed, and returns its engine and the optimizer inside it. Every rank must call this.

        Raises:
            RuntimeError: DeepSpeed did something else than the strategy says.
        """
        deepspeed = _load_deepspeed(self.world, self.device.type, self.backend(self.device.type))
        from trainers.engines.zero_state import ZeroState

        width = getattr(getattr(model, "config", None), "hidden_size", None)
        facts = replace(self._facts, hidden_size=width, num_parameters=sum(parameter.numel() for parameter in model.parameters()))
        config = resolve_deepspeed(self._told, facts)
        self._skeleton = without_weights(model)
        optimizer = build_optimizer(model)
        if self.precision in _DTYPES:
            for parameter in model.parameters():
                parameter.data = parameter.data.to(_DTYPES[self.precision])
            widen_batch_norm(model)
            model.forward = torch.autocast(self.device.type, _DTYPES[self.precision])(model.forward)
        if self.stage == 3 and self._told.zero3_init is not False:
            deepspeed.zero.Init(module=model, config_dict_or_path=config)  # tensor by tensor: the device never holds all
            _move_buffers(model, self.device)
        wrapped, zero, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
        self._state = ZeroState(wrapped.module, zero, self.stage)
        self._wrapped = wrapped
        self._refuse_other_engine()
        return wrapped, zero.optimizer

    def own_weights(self, model: nn.Module, optimizer: Any) -> list[Tensor]:
        assert self._state is not None
        return [flat.detach() for flat in self._state.flat_partitions()]

    def spread_weights(self, model: nn.Module) -> None:
        assert self.stage < 3, "resolve_deepspeed refuses what would need it"
        self._wrapped.optimizer.update_lp_params()

    def use(self, arithmetic: BatchArithmetic) -> None:
        """The numbers of the attempt's deepspeed.json are the old ones, and give way."""
        self._facts = replace(self._facts, batches=arithmetic)
        config = {key: value for key, value in self._told.config.items() if key not in _BATCH_KEYS}
        self._told = replace(self._told, config=config)

    def discard(self) -> None:
        self._wrapped.destroy()
        self._wrapped = self._state = None

    def describe(self) -> str:
        offload = [f"{what} in {where}" for what, where in self._offloaded().items()]
        processes = f"{self.world.world_size} process{'es' if self.world.world_size > 1 else ''}"
        return ", ".join([f"ZeRO-{self.stage} over {processes}", *offload])

    def parameter_bytes(self, model: nn.Module) -> int:
        """Counts this rank's part of each divided parameter, and whole ones that are there (small ones may stay whole)."""
        return sum(
            p.numel() * p.element_size() + (p.ds_tensor.numel() * p.ds_tensor.element_size() if hasattr(p, "ds_tensor") else 0)
            for p in model.parameters()
        )

    def unwrap(self, model: nn.Module) -> nn.Module:
        module: nn.Module = self._wrapped.module
        return module

    def evaluated(self, model: nn.Module) -> nn.Module:
        module = super().evaluated(model)
        return model if self.divides_parameters else module

    def exported(self, model: nn.Module) -> nn.Module:
        assert self._skeleton is not None
        return self._skeleton

    def without_gradients(self) -> AbstractContextManager[None]:
        return torch.no_grad() if self.divides_parameters else torch.inference_mode()

    def accumulating(self, model: nn.Module, is_last: bool) -> AbstractContextManager[None]:
        """Tells DeepSpeed which micro-batch is a step's last."""
        self._wrapped.set_gradient_accumulation_boundary(is_boundary=is_last)
        return nullcontext()

    def backward(self, loss_sum: Tensor, global_count: float) -> None:
        self._wrapped.backward(loss_sum * (self.world.world_size / global_count), scale_wrt_gas=False)

    def take_step(self, model: nn.Module, optimizer: Any, max_norm: float | None) -> Tensor:
        """Lets DeepSpeed clip (to the same norm: resolve_deepspeed saw to that) and step."""
        self._wrapped.step()
        return torch.as_tensor(self._wrapped.get_global_grad_norm(), dtype=torch.float32).detach()

    def snapshot(self, model: nn.Module, optimizer: Any) -> Snapshot | None:
        """Gathers one tensor at a time; each rank keeps every world-size-th parameter's state, rank 0 the weights too."""
        assert self._state is not None
        rank, world_size = self.world.rank, self.world.world_size
        optimizer_state = self._state.optimizer_state(lambda number: number % world_size == rank)
        return Snapshot(self._state.weights(self.world.is_main), optimizer_state, is_copy=True)

    def whole_weights(self, model: nn.Module) -> dict[str, Tensor]:
        assert self._state is not None
        return self._state.weights(self.world.is_main)

    def restore_weights(self, model: nn.Module, saved: SavedWeights) -> None:
        assert self._state is not None
        self._state.restore_weights(saved)

    def restore_optimizer(self, model: nn.Module, optimizer: Any, saved: OptimizerState) -> None:
        assert self._state is not None
        self._state.restore_optimizer(saved)

    @property
    def scaler(self) -> Any:
        return self._state.loss_scale if self._state is not None and self.precision == "fp16" else None

    def close(self) -> None:
        super().close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def _offloaded(self) -> dict[str, str]:
        places = {"optimizer": self._told.offload_optimizer, "parameters": self._told.offload_param}
        return {what: {"cpu": "host memory", "nvme": "files"}[place] for what, place in places.items() if place}

    def _refuse_other_engine(self) -> None:
        """Proves that DeepSpeed does what it was asked for."""
        assert self._state is not None
        found = self._wrapped.zero_optimization_stage()
        if found != self.stage:
            raise RuntimeError(f"ZeRO stage {self.stage} was asked for, and DeepSpeed runs stage {found}")
        wrong = self._state.undivided(self.world.world_size)
        if wrong:
            raise RuntimeError(f"ZeRO-{self.stage} left {wrong} undivided: training would not be what the strategy says")
        if self._told.offload_optimizer == "cpu" and any(flat.device.type != "cpu" for flat in self._state.flat_partitions()):
            raise RuntimeError("the optimizer's state was to be offloaded, and is on the device")


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    """Moves what is no parameter; DeepSpeed leaves a model that is divided already where it is."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


def _load_deepspeed(world: World, device: str, backend: str) -> Any:
    """Returns DeepSpeed, joined to the process group that is there."""
    place = {"RANK": world.rank, "WORLD_SIZE": world.world_size, "LOCAL_RANK": world.local_rank, "DS_ACCELERATOR": device}
    os.environ.update({name: str(value) for name, value in place.items()})  # it reads them again
    try:
        import deepspeed
    except ImportError as error:
        fix = install_words("deepspeed")
        raise ConfigError(Problem(f"DeepSpeed cannot be imported: {error}", fix=fix)) from error
    deepspeed.utils.logger.setLevel("WARNING")
    deepspeed.ops.__compatible_ops__[_CPU_COLLECTIVES] = False
    _import_muon_uncompiled(deepspeed.runtime.compiler)
    deepspeed.init_distributed(dist_backend=backend)
    return deepspeed


def _import_muon_uncompiled(compiler: Any) -> None:
    """ZeRO imports DeepSpeed's Muon, which nobody here uses, and which compiles three functions as it is imported: 2 s a start."""
    compile_ = compiler.compile
    compiler.compile = lambda: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        compiler.compile = compile_
