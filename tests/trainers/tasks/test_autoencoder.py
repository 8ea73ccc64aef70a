"""The autoencoder: what its loss is, what it shows, and what a classifier takes from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment, Model
from tests.tiny_pictures import tiny_folder
from trainers.images.networks import build_network
from trainers.tasks.autoencoder import AutoencoderTask, build_task

CLASS = "trainers.architectures.autoencoder:ConvAutoencoder"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def built(folder: Path, model: dict[str, Any] | None = None, **task: Any) -> AutoencoderTask:
    return build_task(
        Experiment.model_validate(
            {
                "name": "autoencoder",
                "model": model or {"class": CLASS, "kwargs": {"code": 8, "width": 2}},
                "task": {"kind": "autoencoder", "size": 12} | task,
                "data": {"source": str(tiny_folder(folder / "pictures", num_each=2)), "splits": {"validation": "val"}},
                "train": {"duration": "1 epoch", "global_batch_size": 4},
                "optimizer": {"lr": 0.1},
            }
        )
    )


class Grey(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.full_like(pixels, 0.5)


def batch_of(task: AutoencoderTask, num: int) -> dict[str, torch.Tensor]:
    return task.collate([task.dataset("val" if "val" in task.num_samples else "validation")[0, index] for index in range(num)])


def test_the_loss_is_the_mean_squared_error_of_each_pictures_pixels(tmp_path: Path) -> None:
    task = built(tmp_path)
    batch = batch_of(task, 3)
    expected = ((batch["pixels"].double() / 255 - 0.5) ** 2).mean(dim=(1, 2, 3))
    loss_sum, count = task.train_loss(Grey(), batch, 0.0)
    losses, counted, arguments = task.evaluate_batch(Grey(), batch)
    assert losses.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert (float(loss_sum), int(count), int(counted), task.batch_count(batch)) == (pytest.approx(float(expected.sum()), rel=1e-5), 3, 3, 3)
    metrics = task.build_metrics()
    metrics.update(*arguments)
    assert float(metrics.compute()["psnr"]) == pytest.approx(float(-10 * expected.mean().log10()), rel=1e-5)


def test_reconstructions_stand_below_their_pictures(tmp_path: Path) -> None:
    task = built(tmp_path)
    text = task.illustrate(Grey(), "validation", lambda batch: batch, tmp_path / "figures")
    assert "![reconstructions](figures/validation-reconstructions.png)" in text
    with Image.open(tmp_path / "figures/validation-reconstructions.png") as shown:
        assert shown.size == (6 * 12, 2 * 12)
        assert {shown.getpixel((x, 12 + 5)) for x in range(6 * 12)} == {(128, 128, 128)}
    assert task.illustrate(Grey(), "validation", lambda batch: batch, None) == ""


def test_a_network_that_gives_no_picture_back_is_refused(tmp_path: Path) -> None:
    task = built(tmp_path)
    with pytest.raises(ConfigError, match=r"model.class: the network gives a tensor of \(2, 432\) for a batch, and \(2, 3, 12, 12\) is wanted"):
        task.train_loss(nn.Flatten(), batch_of(task, 2), 0.0)


def test_a_classifier_takes_the_encoder_and_draws_its_head(tmp_path: Path) -> None:
    task = built(tmp_path)
    autoencoder = task.build_model()
    weights = {name: tensor + 1 for name, tensor in autoencoder.state_dict().items()}
    task.save(autoencoder, tmp_path / "model", weights)
    kwargs = {"num_classes": 3, "code": 8, "width": 2, "channels": 3, "size": 12}
    model = {"class": "trainers.architectures.autoencoder:EncoderClassifier", "kwargs": kwargs, "weights": str(tmp_path / "model")}
    classifier, notes = build_network(Model.model_validate(model | {"key_map": [r"^decoder\..* ->"]}), ["a", "b", "c"], 3, seed=0)
    assert {name: tensor.tolist() for name, tensor in classifier.state_dict().items() if name.startswith("encoder.")} == {
        name: tensor.tolist() for name, tensor in weights.items() if name.startswith("encoder.")
    }
    assert classifier.head.weight.abs().max() < 1
    assert notes == ["the head head is new: 3 classes"]


def test_hidden_squares_follow_seed_epoch_and_index_and_are_hidden_in_training_alone(tmp_path: Path) -> None:
    task = built(tmp_path, hidden=0.5, hidden_size=5)
    samples = task.dataset("train")
    shown = samples[1, 2]["shown"]
    assert (shown.shape, shown.dtype) == ((1, 12, 12), torch.bool)
    assert all(len(shown[0, y : y + 5, x : x + 5].unique()) == 1 for y in (0, 5, 10) for x in (0, 5, 10))
    assert torch.equal(samples[1, 2]["shown"], shown)
    drawn = torch.stack([samples[epoch, index]["shown"][0, ::5, ::5] for epoch in range(20) for index in range(6)])
    assert 0.45 < drawn.float().mean() < 0.55
    assert len(drawn.flatten(1).unique(dim=0)) > 100
    assert "shown" not in task.dataset("validation")[0, 0]
    batch = task.collate([samples[0, index] for index in range(2)])
    network = nn.Identity()
    seen = task._reconstruct(network, batch)[0]
    assert (seen[~batch["shown"].expand_as(seen)] == 0).all()
    assert (seen != 0).any()
