"""An autoencoder of pictures: a network of a class of one's own gives back what it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks import Autoencoder
from trainers.images.dataset import PictureDataset, collate_pictures, sample_seed
from trainers.images.samples import PictureSamples, prepared
from trainers.images.transforms import normalised
from trainers.models.batch_norm import set_batch_norm
from trainers.models.own_networks import build_sized_network, save_sized_network
from trainers.tasks import Batch, Sample, SampleKey

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

NUM_SHOWN = 10
"""Pictures that the report shows beside their reconstructions."""


def build_task(experiment: Experiment) -> AutoencoderTask:
    """Returns the task with its pictures looked at; ranks that call this together share one preparation."""
    return AutoencoderTask(experiment, *prepared(experiment))


class AutoencoderTask(PictureSamples):
    """See trainers.tasks.Task for what each method promises.

    The loss is the mean squared error of a picture's pixels, from 0 to 1; the network sees them normalised (task.mean, task.std), as a
    classifier that goes on with its encoder does.
    """

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        super().__init__(experiment, folder, info)
        assert isinstance(experiment.task, Autoencoder)
        self.options: Autoencoder = experiment.task
        self.collate = collate_partly_hidden

    def dataset(self, split: str) -> Dataset[Sample]:
        whole, options = self.pictures(split), self.options
        hides = split == "train" and options.hidden > 0
        return PartlyHidden(whole, options.hidden, options.hidden_size, options.size, self._experiment.seed) if hides else whole

    def build_model(self) -> nn.Module:
        model = self._experiment.model
        return set_batch_norm(build_sized_network(model, self._sizes, self._experiment.seed), model.batch_norm)

    @property
    def _sizes(self) -> dict[str, int]:
        return {"channels": self.options.channels, "size": self.options.size}

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        errors = self._errors(model, batch)
        return errors.sum(), torch.tensor(len(errors), device=errors.device)

    def batch_count(self, batch: Batch) -> int:
        return len(batch["pixels"])

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        reconstruction, target = self._reconstruct(model, batch)
        errors = _mean_squared(reconstruction, target)
        return errors, torch.tensor(len(errors), device=errors.device), (reconstruction, target)

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection
        from torchmetrics.image import PeakSignalNoiseRatio

        return MetricCollection({"psnr": PeakSignalNoiseRatio(data_range=1.0)})

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Shows the first pictures of a split above what the network makes of them."""
        samples = self.dataset(split)
        shown = place(self.collate([samples[0, index] for index in range(min(NUM_SHOWN, self.num_samples[split]))]))
        reconstruction, target = self._reconstruct(model, shown)
        if folder is None:
            return ""
        path = folder / f"{split}-reconstructions.png"
        _write_rows(path, target, reconstruction)
        return f"## Reconstructions\n\nThe first pictures of the {split} split, and below each what the network gives back.\n\n" + (
            f"![reconstructions]({folder.name}/{path.name})\n"
        )

    def save(self, model: nn.Module, folder: Path, weights: Mapping[str, Tensor]) -> None:
        mean, std = self.statistics
        save_sized_network(self._experiment.model, self._sizes, {"mean": mean, "std": std}, folder, weights)

    def _errors(self, model: nn.Module, batch: Batch) -> Tensor:
        return _mean_squared(*self._reconstruct(model, batch))

    def _reconstruct(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns what the network gives back and what it should have: float32 [B, C, size, size] each.

        Raises:
            ConfigError: it gives something else than a picture of the same size.
        """
        pixels = normalised(batch["pixels"], *self.statistics)
        output: Any = model(pixels * batch["shown"] if "shown" in batch else pixels)  # hidden squares have the mean colour
        target = batch["pixels"].float() / 255
        if not isinstance(output, Tensor) or output.shape != target.shape:
            given = f"a tensor of {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            what = f"the network gives {given} for a batch, and {tuple(target.shape)} is wanted: what it sees"
            raise ConfigError(Problem(what, key="model.class", fix="a network that gives back the shape it is given, or another task.size"))
        return output.float(), target


class PartlyHidden(Dataset[Sample]):
    """Samples with `shown`, bool [1, size, size]: which pixels the network sees, drawn from (seed, epoch, index) (He et al., arXiv:2111.06377)."""

    def __init__(self, pictures: PictureDataset, probability: float, edge: int, size: int, seed: int) -> None:
        self._pictures, self._probability, self._edge, self._size, self._seed = pictures, probability, edge, size, seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, key: SampleKey) -> Sample:
        draw = torch.Generator().manual_seed(sample_seed(self._seed, *key))
        num = -(-self._size // self._edge)
        squares = torch.rand(1, num, num, generator=draw) >= self._probability
        shown = squares.repeat_interleave(self._edge, 1).repeat_interleave(self._edge, 2)[:, : self._size, : self._size]
        return {**self._pictures[key], "shown": shown}


def collate_partly_hidden(samples: list[Sample]) -> dict[str, Tensor]:
    """Returns pixels, uint8 [B, C, size, size], labels, int64 [B], and where something is hidden `shown`, bool [B, 1, size, size]."""
    batch = collate_pictures(samples)
    return batch | {"shown": torch.stack([sample["shown"] for sample in samples])} if "shown" in samples[0] else batch


def _mean_squared(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Returns the mean squared error of each picture, float32 [B]."""
    return functional.mse_loss(reconstruction, target, reduction="none").flatten(1).mean(1)


def _write_rows(path: Path, above: Tensor, below: Tensor) -> None:
    """Writes two rows of pictures, float32 [B, C, H, W] each, as one PNG."""
    from PIL import Image

    rows = torch.cat([torch.cat(list(pictures), dim=-1) for pictures in (above, below)], dim=-2)
    pixels = (rows.clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).save(path)
