"""What thaws when: patterns of what is frozen, steps that come, engines that can; and no gradient before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from trainers.architectures.cifar_resnet import CifarResNet
from trainers.models.batch_norm import set_batch_norm
from trainers.optimizers import build_optimizer, freeze_parameters
from trainers.thawing import Thaw, Thawing, all_thawed, plan_thawing


class Planned(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2))


def experiment(unfreeze_at: dict[str, list[str]], freeze: list[str], **model: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "thawing",
            "model": {"class": "a:B", "freeze": freeze} | model,
            "task": {"kind": "image_classification"},
            "data": {"source": "x"},
            "train": {"duration": "1 epoch", "global_batch_size": 4, "unfreeze_at": unfreeze_at},
            "optimizer": {"lr": 0.1, "weight_decay": 0.1},
        }
    )


def planned(model: nn.Module, unfreeze_at: dict[str, list[str]], freeze: list[str], can_thaw: bool = True, **options: Any) -> Thawing:
    freeze_parameters(model, freeze)
    engine: Any = SimpleNamespace(can_thaw=can_thaw, describe=lambda: "ZeRO-2 over 2 processes")
    return plan_thawing(model, experiment(unfreeze_at, freeze, **options), engine, steps_per_epoch=10, total_steps=40)


def test_a_parameter_thaws_at_the_first_pattern_that_names_it() -> None:
    thawing = planned(Planned(), {"2 epochs": ["*"], "5 steps": ["1.*"]}, ["0.*", "1.*"])
    assert thawing.left == [Thaw(5, ("1.weight", "1.bias")), Thaw(20, ("0.weight", "0.bias"))]
    assert thawing.names == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_batch_norm_that_is_frozen_for_good_stays_so() -> None:
    model = set_batch_norm(CifarResNet(8), "frozen")
    names = planned(model, {"5 steps": ["*"]}, ["layer1.*"], batch_norm="frozen").names
    assert names == {"layer1.0.conv1.weight", "layer1.0.conv2.weight"}


@pytest.mark.parametrize(
    ("unfreeze_at", "freeze", "can_thaw", "message"),
    [
        ({"5 steps": ["2.*"]}, ["0.*"], True, r"'2.\*' matches nothing that is frozen until then\n    allowed: names like 0.weight, 0.bias"),
        ({"5 steps": ["0.*"], "6 steps": ["0.*"]}, ["0.*"], True, r"matches nothing that is frozen until then\n    allowed: nothing: model.freeze"),
        ({"4 epochs": ["0.*"]}, ["0.*"], True, "step 40 never comes: training has 40"),
        ({"5 steps": ["0.*"]}, ["0.*"], False, "ZeRO-2 over 2 processes divides at the start what is trained then"),
    ],
)
def test_what_would_never_thaw_is_refused(unfreeze_at, freeze, can_thaw, message) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(Planned(), unfreeze_at, freeze, can_thaw)


def test_a_frozen_parameter_has_no_gradient_and_stays_to_the_bit_though_the_optimizer_holds_it() -> None:
    model = Planned()
    thawing = planned(model, {"5 steps": ["0.*"]}, ["0.*", "1.*"])
    optimizer = build_optimizer(model, experiment({}, []).optimizer, thawing.names)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert {name for name, parameter in model.named_parameters() if id(parameter) in held} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(2):
        model(torch.rand(4, 2)).sum().backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == ["2.weight", "2.bias"]
        optimizer.step()
    assert [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])] == ["2.weight", "2.bias"]


def test_what_thaws_later_is_trained_while_memory_is_tried() -> None:
    model = Planned()
    thawing = planned(model, {"5 steps": ["0.*"]}, ["0.*", "1.*"])
    with all_thawed(model, thawing):
        assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, False, False, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, False, False, True, True]
