from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from trainers.checkpoints.named_state import join_shares, named_optimizer_state, restore_optimizer_state, whole_state_dict


def trained(kind: type[Optimizer], **options: float) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    groups = [{"params": [model[0].weight, model[1].weight], "weight_decay": 0.1}, {"params": [model[0].bias, model[1].bias], "weight_decay": 0.0}]
    return model, kind(groups, lr=0.1, **options)  # type: ignore[call-arg]


def step(model: nn.Module, optimizer: Optimizer) -> None:
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(("kind", "options"), [(torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.SGD, {})])
def test_an_optimizer_goes_on_from_its_named_state_bit_by_bit(kind: type[Optimizer], options: dict[str, float]) -> None:
    model, optimizer = trained(kind, **options)
    step(model, optimizer)
    state = named_optimizer_state(model, optimizer, to_host=True)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(model, optimizer)
    again, other = trained(kind, **options)
    again.load_state_dict(weights)
    restore_optimizer_state(again, other, state)
    step(again, other)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(again.parameters(), model.parameters(), strict=True))


def test_one_count_of_steps_for_all_parameters_counts_a_step_once() -> None:
    model, optimizer = trained(torch.optim.AdamW, fused=True)
    step(model, optimizer)
    state = named_optimizer_state(model, optimizer, to_host=True)
    count = torch.tensor(1.0)
    for entries in state["state"].values():
        entries["step"] = count  # as torch.load gives them back, where ZeRO has saved them
    restore_optimizer_state(model, optimizer, state)
    step(model, optimizer)
    assert [float(entries["step"]) for entries in optimizer.state.values()] == [2.0] * 4


def test_the_shares_of_all_ranks_are_the_whole_state() -> None:
    model, optimizer = trained(torch.optim.AdamW)
    step(model, optimizer)
    shares = [named_optimizer_state(model, optimizer, is_mine=lambda number, rank=rank: number % 3 == rank) for rank in range(3)]  # type: ignore[misc]
    assert [sorted(share["state"]) for share in shares] == [["0.weight", "1.bias"], ["1.weight"], ["0.bias"]]
    assert sorted(join_shares(shares)["state"]) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    assert join_shares(shares)["groups"] == named_optimizer_state(model, optimizer)["groups"]


def test_tied_weights_stay_tied_in_the_whole_state() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    model["head"].weight = model["embedding"].weight
    whole = whole_state_dict(model, is_kept=True)
    assert whole["head.weight"].data_ptr() == whole["embedding.weight"].data_ptr() != model["head"].weight.data_ptr()
    assert whole_state_dict(model, is_kept=False) == {}
