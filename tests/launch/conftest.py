"""A small experiment, a machine that is always the same, and plans made of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.config.load import LoadedExperiment, load_experiment
from launch.config.sources import HubName
from launch.config.strategy import AUTO, Strategy
from launch.plan import Options
from launch.plan_experiment import ExperimentPlan, plan_experiment
from launch.probe import Code, ExperimentProbe, Machine, Place
from launch.sizes.model_size import UnknownSize
from launch.sizes.samples import SampleCount

EXPERIMENT = """\
name: tiny
model: {source: owner/model}
task:
  kind: text_classification
  text: sentence
  label: label
data:
  source: owner/data
train:
  duration: 2 epochs
  global_batch_size: 32
optimizer: {lr: 1e-4}
"""

MACHINE = Machine(host="node1", num_cores=8, num_gpus=0, memory_bytes=16 * 2**30, num_threads=None, python="/env/bin/python", python_version="3.11.7")
RUN_PATH = Path("/runs/tiny/20260101-000000-abcdef")


@pytest.fixture(autouse=True)
def hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of the launcher asks the network."""
    monkeypatch.setattr("launch.probe.is_reachable", lambda url: True)


@pytest.fixture
def experiment_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def load(experiment_file: Path) -> Callable[..., LoadedExperiment]:
    """Returns the small experiment, as if it lay in /experiments, with overrides."""

    def load_tiny(*overrides: str) -> LoadedExperiment:
        loaded = load_experiment(str(experiment_file), overrides)
        folder = str(experiment_file.parent)
        origins = {
            key: replace(origin, detail=origin.detail and origin.detail.replace(folder, "/experiments")) for key, origin in loaded.origins.items()
        }
        return replace(loaded, path=Path("/experiments/tiny.yaml"), origins=origins)

    return load_tiny


@pytest.fixture
def make_probe() -> Callable[..., ExperimentProbe]:
    def make(num_gpus: int = 0, num_samples: int | None = 100, num_threads: int | None = None, **changes: Any) -> ExperimentProbe:
        known = ExperimentProbe(
            machine=replace(MACHINE, num_gpus=num_gpus, num_threads=num_threads),
            code=Code(commit="0123456789abcdef", root=Path("/code"), is_dirty=True),
            versions={"torch": "2.15.0", "transformers": "5.23.0", "accelerate": "1.15.0", "datasets": "5.0.0", "wandb": "0.31.0"},
            model=HubName("owner/model"),
            data=HubName("owner/data"),
            samples=SampleCount(num_samples) if num_samples is not None else SampleCount(None, "the data has not been fetched yet"),
            place=Place(RUN_PATH, exists=False, is_empty=True, is_writable=True, free_bytes=100 * 2**30),
            missing_paths={},
            is_offline=False,
            hub_cached=frozenset(),
            unreachable_hub=None,
            is_wandb_logged_in=False,
            size=UnknownSize("the model has not been fetched yet"),
        )
        return replace(known, **changes)

    return make


@pytest.fixture
def make_plan(load: Callable[..., LoadedExperiment], make_probe: Callable[..., ExperimentProbe]) -> Callable[..., ExperimentPlan]:
    def make(*overrides: str, strategy: Strategy = AUTO, probe: ExperimentProbe | None = None, **options: Any) -> ExperimentPlan:
        return plan_experiment(load(*overrides), strategy, probe or make_probe(), Options(RUN_PATH, **options))

    return make
