"""What ZeRO has divided, by parameter name and in whole tensors: read for checkpoints, written back on any number of ranks.

DeepSpeed keeps the fp32 weights and the optimizer's state of a rank in flat partitions. Its own checkpoints are those partitions, pickled
and bound to the number of ranks; these are neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from deepspeed.runtime.zero import GatheredParameters
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from torch.nn import functional

from trainers.checkpoints.named_state import OptimizerState, group_options
from trainers.checkpoints.restoring import SavedWeights


class ZeroState:
    """Reads and writes what a DeepSpeed ZeRO optimizer of stage 1, 2 or 3 holds. Every rank must call each method."""

    def __init__(self, module: nn.Module, zero: Any, stage: int) -> None:
        self._module, self._zero, self._stage = module, zero, stage
        self.loss_scale = LossScale(zero)

    def flat_partitions(self) -> list[Tensor]:
        """Returns this rank's fp32 partitions, one a parameter group (stage 3: one or more); nothing is communicated."""
        partitions = self._zero.fp32_partitioned_groups_flat if self._stage == 3 else self._zero.single_partition_of_fp32_groups
        return list(partitions)

    def undivided(self, world_size: int) -> str | None:
        """Returns what is whole on a rank and should not be, None if nothing is; nothing is communicated."""
        if self._stage == 3:
            whole = [name for name, parameter in self._module.named_parameters() if not _is_divided_by(parameter, world_size)]
            return f"{len(whole)} parameters, e.g. {whole[0]}," if whole else None
        total = sum(p.numel() for p in self._module.parameters() if p.requires_grad)
        held = sum(flat.numel() for flat in self.flat_partitions())
        padding = 4096 * len(self.flat_partitions())
        return f"{held} of {total} numbers of the optimizer's state" if held > total / world_size + padding else None

    def weights(self, is_kept: bool) -> dict[str, Tensor]:
        """Returns every parameter (in fp32) and buffer whole in host memory where `is_kept`, else {}; one tensor at a time is on the device."""
        whole: dict[str, Tensor] = {}
        copies: dict[int, Tensor] = {}
        for name, tensor in self._module.state_dict(keep_vars=True).items():
            if id(tensor) not in copies:
                gathered = self._whole(tensor)
                copies[id(tensor)] = gathered.detach().to("cpu", copy=True) if is_kept else torch.empty(0)
            if is_kept:
                whole[name] = copies[id(tensor)]
        return whole

    def optimizer_state(self, is_mine: Callable[[int], bool]) -> OptimizerState:
        """Returns the optimizer's state of the parameters whose number `is_mine`, in host memory."""
        flats, states = self.flat_partitions(), self._zero.optimizer.state
        self._link_states()
        first = states.get(flats[0], {}) if flats else {}
        spread = [key for key, value in first.items() if isinstance(value, Tensor) and value.shape == flats[0].shape]
        shared = {key: value.cpu().clone() if isinstance(value, Tensor) else value for key, value in first.items() if key not in spread}
        state: dict[str, dict[str, Any]] = {}
        for number, (name, parameter) in enumerate(self._trained()):
            entries = {key: value.clone() if isinstance(value, Tensor) else value for key, value in shared.items()}  # each counts its own steps
            for key in spread:
                whole = safe_get_full_optimizer_state(parameter, key)
                if is_mine(number):
                    entries[key] = whole.detach().to("cpu", copy=True).view(_shape(parameter))
            if first and is_mine(number):
                state[name] = entries
        return {"state": state, "groups": group_options(self._zero.optimizer)}

    def restore_weights(self, saved: SavedWeights) -> None:
        """Replaces the weights by saved ones, of which one tensor at a time is whole on a rank."""
        targets = self._module.state_dict(keep_vars=True)
        found: set[int] = set()
        with torch.no_grad():
            for name, value in saved.items():
                target = targets[name]
                found.add(id(target))
                if hasattr(target, "ds_id"):
                    with GatheredParameters([target], modifier_rank=0):
                        target.data.copy_(value)
                else:
                    target.data.copy_(value)
                if target.requires_grad:
                    self._write(target, value, None)
        missing = [name for name, target in targets.items() if id(target) not in found]
        if missing and not saved.is_part:
            raise RuntimeError(f"{saved.file} has no {missing[0]}")

    def restore_optimizer(self, saved: OptimizerState) -> None:
        """Replaces the optimizer's state by a saved one, of which each rank takes its part."""
        optimizer, names = self._zero.optimizer, dict(self._trained())
        for group, options in zip(optimizer.param_groups, saved["groups"], strict=True):
            group.update(options)
        if not saved["state"]:
            return
        example_name, example = next(iter(saved["state"].items()))
        spread = [key for key, value in example.items() if isinstance(value, Tensor) and value.shape == _shape(names[example_name]) and value.ndim]
        for flat in self.flat_partitions():
            shared = {key: value.clone() if isinstance(value, Tensor) else value for key, value in example.items() if key not in spread}
            if not optimizer.defaults.get("fused"):
                optimizer.state[flat] = shared | {key: torch.zeros_like(flat) for key in spread}
            else:
                moved = {key: value.to(flat.device) if isinstance(value, Tensor) else value for key, value in shared.items()}
                optimizer.state[flat] = moved | {key: torch.zeros_like(flat) for key in spread}
        self._link_states()
        for name, parameter in names.items():
            for key in spread:
                self._write(parameter, saved["state"][name][key], key)

    def _link_states(self) -> None:
        """Lets DeepSpeed find each parameter's part of the optimizer's state, in every group.

        By itself it links all groups once, after the first one's first step, when the others have no state yet (0.19.8, stage_1_and_2.py,
        _optimizer_step).
        """
        if self._stage < 3:
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def _trained(self) -> list[tuple[str, Tensor]]:
        return [(name, parameter) for name, parameter in self._module.named_parameters() if parameter.requires_grad]

    def _whole(self, tensor: Tensor) -> Tensor:
        """Returns a parameter or buffer whole; trained ones from their fp32 partitions."""
        if tensor.requires_grad:
            return safe_get_full_fp32_param(tensor).view(_shape(tensor))
        if hasattr(tensor, "ds_id"):
            with GatheredParameters([tensor]):
                return tensor.detach().clone()
        return tensor

    def _write(self, parameter: Any, whole: Tensor, key: str | None) -> None:
        """Gives this rank its part of a parameter's fp32 weights, or of an entry of its optimizer state."""
        whole = whole.to(self.flat_partitions()[0].device, torch.float32)
        if self._stage < 3:
            if key is None:
                safe_set_full_fp32_param(parameter, whole)
            else:
                safe_set_full_optimizer_state(parameter, whole, key)
            return
        size, rank = parameter.ds_tensor.numel(), torch.distributed.get_rank()  # the last part is padded, which DeepSpeed's own way forgets
        part = functional.pad(whole.flatten(), (0, size * torch.distributed.get_world_size() - whole.numel()))[rank * size : (rank + 1) * size]
        if key is None:
            safe_set_local_fp32_param(parameter, part)
        else:
            safe_set_local_optimizer_state(parameter, part, key)


class LossScale:
    """The loss scale of fp16, as a checkpoint keeps it."""

    def __init__(self, zero: Any) -> None:
        self._scaler = getattr(zero, "loss_scaler", None)

    def state_dict(self) -> dict[str, Any]:
        """Returns its plain numbers."""
        return {key: value for key, value in vars(self._scaler).items() if isinstance(value, bool | int | float)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts them back."""
        vars(self._scaler).update(state)


def _shape(parameter: Tensor) -> torch.Size:
    """Returns the whole shape, which ZeRO-3 keeps beside the empty parameter."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def _is_divided_by(parameter: Any, world_size: int) -> bool:
    return hasattr(parameter, "ds_tensor") and parameter.ds_tensor.numel() <= -(-parameter.ds_numel // world_size)
