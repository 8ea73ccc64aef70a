"""Puts a checkpoint's weights and schedule into those of this training, or says which part of it does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from launch.config.errors import Problem, StateError
from trainers.checkpoints.named_state import OptimizerState

_OF_A_LENGTH = ("total_steps", "_schedule_phases")
"""What OneCycleLR's state says of its length; the other schedules keep theirs in functions, which are not saved."""
_FIX = "a new run for the other model (fullrank run); --force is for values that leave every shape as it is"


class SavedWeights:
    """The tensors of a safetensors file by their names in the model; each is read when it is asked for.

    Args:
        names: {name in the model: name in the file}; None: they are the same.
        is_part: weights that are not in it keep what they are.
    """

    def __init__(self, file: Path, names: Mapping[str, str] | None = None, is_part: bool = False) -> None:
        from safetensors import safe_open

        self.file, self.is_part = file, is_part
        self._opened = safe_open(file, "pt")
        in_file = list(self._opened.keys())
        self._names = {name: name for name in in_file} if names is None else {name: key for name, key in names.items() if key in in_file}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {name: tuple(self._opened.get_slice(key).get_shape()) for name, key in self._names.items()}

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yields (name, tensor in host memory)."""
        for name, key in self._names.items():
            yield name, self._opened.get_tensor(key)


def restore_weights(saved: SavedWeights, module: nn.Module) -> None:
    """Replaces a model's weights by saved ones.

    Raises:
        StateError: names the first tensor that does not fit.
    """
    misfit = find_misfit(saved, module)
    if misfit:
        raise StateError(Problem(f"the weights do not fit this model: {misfit}", where=str(saved.file), fix=_FIX))
    targets = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in saved.items():
            targets[name].copy_(tensor)


def find_misfit(weights: SavedWeights, module: nn.Module) -> str | None:
    """Returns what is wrong with the first tensor that does not fit, in the model's order, or None. Tied weights are saved once."""
    saved = weights.shapes
    own = dict(module.state_dict(keep_vars=True))
    loaded = {id(tensor) for name, tensor in own.items() if name in saved} | {
        tensor.data_ptr() for name, tensor in own.items() if name in saved and tensor.numel()
    }
    for name, tensor in own.items():
        if not weights.is_part and name not in saved and id(tensor) not in loaded and tensor.data_ptr() not in loaded:
            return f"{name} {tuple(tensor.shape)} is not in the checkpoint"
        if name in saved and saved[name] != tuple(tensor.shape):
            return f"{name} is {saved[name]} in the checkpoint and {tuple(tensor.shape)} here"
    foreign = next((name for name in saved if name not in own), None)
    return f"{foreign} {saved[foreign]} is not in this model" if foreign else None


def refuse_other_optimizer(saved: OptimizerState, model: nn.Module, optimizer: Any, path: Path) -> None:
    """Raises StateError where a saved state is of another optimizer, or of parameters that are not trained here."""
    own = optimizer.param_groups
    held = {id(parameter) for group in own for parameter in group["params"]}  # also what is frozen now and thaws later
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad or id(parameter) in held}
    foreign = next((name for name in saved["state"] if name not in trained), None)
    if foreign or len(saved["groups"]) != len(own):
        what = f"of {foreign}, which is not trained here" if foreign else f"in {len(saved['groups'])} groups of parameters, and here are {len(own)}"
        raise StateError(
            Problem(f"the optimizer's state is {what}", where=str(path), fix="the same model.freeze and optimizer as before, or a new run")
        )
    if own and set(saved["groups"][0]) != set(own[0]) - {"params"}:
        what = f"the optimizer's state is of another optimizer than {type(getattr(optimizer, 'optimizer', optimizer)).__name__}"
        raise StateError(Problem(what, where=str(path), key="optimizer.name", fix="the same optimizer.name as before, or a new run"))


def renew_options(optimizer: Any, built_with: Sequence[Mapping[str, Any]], growth: float, schedule: Any) -> None:
    """Gives a restored optimizer the options that it was built with (learning rates, decay, betas): a person changed them by force.

    Where a plateau lowered the rate, the new one is lower by the same factor; other schedules are put on their curve by restore_schedule.

    Args:
        growth: new learning rate / old one.
    """
    for group, fresh in zip(optimizer.param_groups, built_with, strict=True):
        group.update({**fresh, "lr": group["lr"] * growth if isinstance(schedule, ReduceLROnPlateau) else fresh["lr"]})


def restore_schedule(schedule: Any, state: Mapping[str, Any], is_new_curve: bool, peaks: list[float] | None = None) -> None:
    """Puts a schedule back where it was; if it has another curve now, on that from the next step on.

    Args:
        is_new_curve: the training has another length, or the schedule or the learning rate were changed by force.
        peaks: the learning rates to follow it with, where they are not the saved ones.
    """
    if not is_new_curve or isinstance(schedule, ReduceLROnPlateau):
        schedule.load_state_dict(state)
        return
    schedule.load_state_dict({name: value for name, value in state.items() if name not in _OF_A_LENGTH})
    if peaks is not None:
        schedule.base_lrs = peaks
    if schedule.last_epoch <= getattr(schedule, "total_steps", schedule.last_epoch):  # else it is shorter than what was trained
        schedule.last_epoch -= 1
        schedule.step()  # to the same place again: the optimizer holds the old curve's rate
