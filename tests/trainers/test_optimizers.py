from __future__ import annotations

import pytest
import torch
from torch import nn

from launch.config import experiment as config
from launch.config.durations import parse_duration
from launch.config.errors import ConfigError
from trainers.optimizers import build_optimizer, build_schedule, freeze_parameters, parameter_groups, set_training_mode


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(5, 4)
        self.layer = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)) for _ in range(2))
        self.classifier = nn.Linear(4, 2)


def learning_rates(name: str, steps: int, **options: object) -> list[float]:
    optimizer = build_optimizer(Net(), config.Optimizer(name="sgd", lr=1.0))
    schedule = build_schedule(optimizer, config.Schedule(name=name, **options), total_steps=steps, steps_per_epoch=10)  # type: ignore[arg-type]
    rates = []
    for _ in range(steps):
        rates.append(round(optimizer.param_groups[0]["lr"], 4))
        optimizer.step()
        schedule.step()
    return rates


def test_freezing_takes_gradients_from_what_the_patterns_match() -> None:
    net = Net()
    assert freeze_parameters(net, ["embeddings.*", "layer.[0]*"]) == 20 + 20
    assert [name for name, p in net.named_parameters() if p.requires_grad] == [
        "layer.1.0.weight",
        "layer.1.0.bias",
        "classifier.weight",
        "classifier.bias",
    ]


def test_a_frozen_part_is_in_evaluation_mode_with_its_dropout() -> None:
    net = Net()
    freeze_parameters(net, ["layer.0.*"])
    set_training_mode(net)
    assert [module.training for module in (net, net.layer[0][1], net.layer[1][1], net.classifier)] == [True, False, True, True]  # type: ignore[index]


@pytest.mark.parametrize(("patterns", "words"), [(["encoder.*"], "matches no parameter"), (["*"], "nothing is left to train")])
def test_useless_freezing_is_refused(patterns: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        freeze_parameters(Net(), patterns)


def test_biases_are_not_decayed() -> None:
    groups = parameter_groups(Net(), lr=0.1, weight_decay=0.01, layer_decay=None)
    assert [(group["lr"], group["weight_decay"], [p.ndim for p in group["params"]]) for group in groups] == [
        (0.1, 0.01, [2, 2, 2, 2]),
        (0.1, 0.0, [1, 1, 1]),
    ]


def test_layer_decay_lowers_the_rate_with_the_distance_from_the_head() -> None:
    groups = parameter_groups(Net(), lr=1.0, weight_decay=0.0, layer_decay=0.5)
    assert [group["lr"] for group in groups] == [0.125, 0.25, 0.5, 1.0]


def test_schedules_count_optimizer_steps() -> None:
    warmup = parse_duration("20 %", ("%",))
    assert learning_rates("linear", 5, warmup=warmup) == [0.0, 1.0, 0.75, 0.5, 0.25]
    assert learning_rates("constant", 3) == [1.0, 1.0, 1.0]
    assert learning_rates("cosine", 4, min_lr_ratio=0.0) == [1.0, 0.8536, 0.5, 0.1464]
    assert learning_rates("polynomial", 4, power=2.0) == [1.0, 0.5625, 0.25, 0.0625]
    assert learning_rates("wsd", 10, warmup=warmup, decay=warmup) == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]
    cycle = learning_rates("one_cycle", 10, warmup=warmup)
    assert max(cycle) == cycle[2]
    assert cycle[-1] < cycle[0] < 0.1


def test_plateau_lowers_the_rate_after_evaluations_without_gain() -> None:
    optimizer = build_optimizer(Net(), config.Optimizer(name="adamw", lr=1.0))
    schedule = build_schedule(optimizer, config.Schedule(name="plateau", patience=1, factor=0.5), total_steps=9, steps_per_epoch=3)
    for loss in (1.0, 1.0, 1.0):
        schedule.step(loss)  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert isinstance(optimizer, torch.optim.AdamW)
