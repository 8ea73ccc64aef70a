from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from launch.config.experiment import Checkpoint
from launch.config.run_dir import RunDir
from trainers.averaging import NO_AVERAGE, build_average
from trainers.checkpointing import Checkpoints, Progress
from trainers.engine import Engine
from trainers.world import World

STEPS = 5


class Trained:
    """A small model under the engine of one process, with an average of its weights; its first layer is frozen."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.engine = Engine(World(), None, "fp32")
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        model[0].requires_grad_(False)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.model, self.optimizer = self.engine.prepare(model, lambda _: torch.optim.AdamW(parameters, lr=0.1))
        self.schedule = torch.optim.lr_scheduler.ConstantLR(self.optimizer)
        self.average = build_average(self.engine, self.model, self.optimizer, 0.8)

    def step(self) -> None:
        self.model(torch.randn(4, 3)).square().sum().backward()
        self.engine.take_step(self.model, self.optimizer, None)
        self.average.update()

    def checkpoints(self, run: RunDir) -> Checkpoints:
        task = SimpleNamespace(fingerprint=None, num_samples={"train": 4}, label_names=["a", "b"], save=save)
        return Checkpoints(run, Checkpoint(background=False), self.engine, task, {"seed": 1}, average=self.average)  # type: ignore[arg-type]


def save(model: nn.Module, folder: Path, weights: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(dict(weights), folder / "model.safetensors")


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_average_is_what_torch_makes_of_the_whole_model() -> None:
    trained = Trained()
    reference = AveragedModel(trained.model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    for _ in range(STEPS):
        trained.step()
        reference.update_parameters(trained.model)
    expected = state(reference.module)
    with trained.average.applied():
        averaged = state(trained.model)
    assert all(torch.equal(averaged[name], expected[name]) for name, _ in trained.model.named_parameters())
    assert not torch.equal(averaged["2.weight"], trained.model.state_dict()["2.weight"])


def test_the_model_has_its_own_weights_again_to_the_bit_also_after_an_error() -> None:
    trained = Trained()
    for _ in range(STEPS):
        trained.step()
    before = state(trained.model)
    with pytest.raises(KeyError), trained.average.applied():
        raise KeyError
    assert equal(state(trained.model), before)


def test_a_checkpoint_offers_the_average_and_goes_on_with_the_weights(tmp_path: Path) -> None:
    trained, resumed, run = Trained(), Trained(), RunDir(tmp_path)
    for _ in range(STEPS):
        trained.step()
    trained.checkpoints(run).save(trained.model, trained.optimizer, trained.schedule, Progress(step=STEPS))
    path = run.checkpoints / f"checkpoint-{STEPS}"
    with trained.average.applied():
        assert equal(load_file(path / "model.safetensors"), state(trained.model))
    assert sorted(load_file(path / "unaveraged.safetensors")) == ["1.bias", "1.weight", "2.bias", "2.weight"]

    resumed.checkpoints(run).restore(path, resumed.model, resumed.optimizer, resumed.schedule)
    assert equal(state(resumed.model), state(trained.model))
    for one in (trained, resumed):
        torch.manual_seed(7)
        for _ in range(STEPS):
            one.step()
    assert equal(state(resumed.model), state(trained.model))
    with trained.average.applied(), resumed.average.applied():
        assert equal(state(resumed.model), state(trained.model))


def test_the_best_checkpoint_becomes_weights_and_average_at_once(tmp_path: Path) -> None:
    trained, run = Trained(), RunDir(tmp_path)
    checkpoints = trained.checkpoints(run)
    trained.step()
    trained.step()
    with trained.average.applied():
        best = state(trained.model)
    checkpoints.save(trained.model, trained.optimizer, trained.schedule, Progress(step=2))
    trained.step()
    checkpoints.load_weights(run.checkpoints / "checkpoint-2", trained.model)
    assert equal(state(trained.model), best)
    with trained.average.applied():
        assert equal(state(trained.model), best)


def test_without_a_decay_nothing_is_averaged() -> None:
    assert build_average(Engine(World(), None, "fp32"), nn.Linear(1, 1), None, None) is NO_AVERAGE
