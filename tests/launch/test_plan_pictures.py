"""The plan of a network with BatchNorm, and of weights in a local file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.config.errors import ConfigError
from launch.config.load import load_experiment
from launch.config.sources import LocalPath, TorchvisionModel
from launch.config.strategy import AUTO, Strategy, load_strategy
from launch.plan import Options
from launch.plan_experiment import ExperimentPlan, plan_experiment
from launch.probe import Probe

EXPERIMENT = """\
name: pictures
model: {source: 'torchvision://resnet50?weights=null'}
task: {kind: image_classification}
data: {source: owner/data}
train: {duration: 1 epoch, global_batch_size: 32}
optimizer: {lr: 0.1}
"""


@pytest.fixture
def planned(tmp_path: Path, make_probe: Callable[..., Probe]) -> Callable[..., ExperimentPlan]:
    def plan(
        *overrides: str, name: str = "resnet50", processes: int = 1, num_gpus: int = 0, strategy: Strategy = AUTO, **known: Any
    ) -> ExperimentPlan:
        path = tmp_path / "pictures.yaml"
        path.write_text(EXPERIMENT)
        probe = replace(make_probe(num_gpus=num_gpus), model=TorchvisionModel(name, None), **known)
        return plan_experiment(load_experiment(str(path), overrides), strategy, probe, Options(Path("/runs/x/y"), processes_per_node=processes))

    return plan


def batch_norm_warnings(plan: ExperimentPlan) -> list[str]:
    return [warning for warning in plan.warnings if "BatchNorm" in warning]


def test_batch_norm_on_split_batches_is_warned_of_and_the_way_out_named(planned):
    (warning,) = batch_norm_warnings(planned(processes=2))
    assert "micro-batches of 16, not the global batch of 32" in warning
    assert "model.batch_norm=frozen" in warning


@pytest.mark.parametrize(
    "changes",
    [{"processes": 1}, {"name": "vgg16"}, {"name": "vit_b_16"}, {"frozen": True}],
    ids=["whole batch", "no BatchNorm", "transformer", "frozen"],
)
def test_there_is_no_warning_where_losses_cannot_depend_on_it(planned, changes):
    overrides = ["model.batch_norm=frozen"] if changes.pop("frozen", False) else []
    assert batch_norm_warnings(planned(*overrides, **({"processes": 2} | changes))) == []


def test_the_bn_variant_of_a_network_has_batch_norm(planned):
    assert batch_norm_warnings(planned(name="vgg16_bn", processes=2))


def test_sync_batch_norm_needs_gpus(planned):
    with pytest.raises(ConfigError, match="SyncBatchNorm exists on GPUs only"):
        planned("model.batch_norm=sync")
    planned("model.batch_norm=sync", num_gpus=2, processes=2)


def test_deepspeed_cannot_thaw_and_the_plan_says_so(planned):
    thawing = ("model.freeze=[layer1.*]", "train.duration=2 epochs", "train.unfreeze_at={1 epoch: ['*']}")
    assert list(planned(*thawing).experiment.train.unfreeze_at.values()) == [["*"]]
    with pytest.raises(ConfigError, match=r"train\.unfreeze_at=\{1 epoch: \['\*'\]\}: DeepSpeed divides at the start what is trained then"):
        planned(*thawing, strategy=load_strategy("zero2"), num_gpus=2, processes=2)


def test_a_file_of_weights_becomes_an_absolute_path(planned):
    plan = planned("model.weights=./weights.pt", weights=LocalPath(Path("/here/weights.pt")))
    assert plan.experiment.model.weights == "/here/weights.pt"
