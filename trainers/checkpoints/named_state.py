"""The state of an optimizer by parameter name, in whole tensors: what it is in a checkpoint, whichever engine wrote it or reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


class OptimizerState(TypedDict):
    """Everything an optimizer remembers.

    Args:
        state: parameter name -> what the optimizer keeps for it (exp_avg, step, ...); tensors of the parameter's shape are whole.
        groups: the options of each parameter group, without its parameters.
    """

    state: dict[str, dict[str, Any]]
    groups: list[dict[str, Any]]


def named_optimizer_state(
    model: nn.Module,
    optimizer: Optimizer,
    whole: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    is_mine: Callable[[int], bool] = lambda _: True,
    to_host: bool = False,
) -> OptimizerState:
    """Returns the state of an optimizer over the model's own parameters. If `whole` communicates, every rank must call this.

    Args:
        whole: makes a tensor of the state whole, for as long as it takes to keep it or drop it.
        is_mine: whether this rank keeps the state of the parameter of that number.
        to_host: keep copies in host memory.
    """
    state: dict[str, dict[str, Any]] = {}
    for number, (name, parameter) in enumerate(named_in_groups(model, optimizer)):
        entries = optimizer.state.get(parameter, {})
        for key, value in entries.items():
            kept = whole(value) if isinstance(value, Tensor) else value
            if is_mine(number):
                state.setdefault(name, {})[key] = kept.to("cpu", copy=True) if to_host and isinstance(kept, Tensor) else kept
    return {"state": state, "groups": group_options(optimizer)}


def restore_optimizer_state(model: nn.Module, optimizer: Optimizer, saved: OptimizerState) -> None:
    """Gives an optimizer over the model's own parameters a saved state; of a sharded parameter's, what belongs to this rank."""
    indexed, groups, first = {}, [], 0
    names = list(named_in_groups(model, optimizer))
    for number, (name, parameter) in enumerate(names):
        if name in saved["state"]:
            indexed[number] = {key: like_parameter(value, parameter) for key, value in saved["state"][name].items()}
    for group, options in zip(optimizer.param_groups, saved["groups"], strict=True):
        groups.append(options | {"params": list(range(first, first + len(group["params"])))})
        first += len(group["params"])
    optimizer.load_state_dict({"state": indexed, "param_groups": groups})


def like_parameter(value: Any, parameter: Tensor) -> Any:
    """Returns a whole tensor of the parameter's shape placed as the parameter is; anything else as it is. Nothing is communicated.

    Adam's count of steps is copied: a file may hold one for all parameters, and each of them would count in it.
    """
    if isinstance(value, Tensor) and value.ndim == 0:
        return value.clone()
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        device = parameter.to_local().device
        return distribute_tensor(value.to(device), parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value


def named_in_groups(model: nn.Module, optimizer: Optimizer) -> Iterable[tuple[str, Tensor]]:
    """Yields (name, parameter) in the order of the optimizer's groups."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[parameter], parameter


def group_options(optimizer: Any) -> list[dict[str, Any]]:
    """Returns what each parameter group says, without its parameters."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def join_shares(shares: Iterable[Mapping[str, Any]]) -> OptimizerState:
    """Returns the whole state from the ranks' shares."""
    joined: OptimizerState = {"state": {}, "groups": []}
    for share in shares:
        joined["state"] |= share["state"]
        joined["groups"] = share["groups"]
    return joined


def whole_state_dict(model: nn.Module, is_kept: bool) -> dict[str, Tensor]:
    """Returns every parameter and buffer whole in host memory where `is_kept`, else {}. Every rank must call this.

    One tensor at a time is whole on the device. Tied parameters share their memory in what is returned, as they do in the model.
    """
    whole: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in copies:
            gathered = gather(tensor)
            copies[id(tensor)] = gathered.detach().to("cpu", copy=True) if is_kept else torch.empty(0)
        if is_kept:
            whole[name] = copies[id(tensor)]
    return whole


def gather(tensor: Tensor) -> Tensor:
    """Returns a whole tensor on the device. Every rank must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
