"""Semantic segmentation: a category for each pixel, by any segmentation network of torchvision or a class of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision import tv_tensors

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks import SegmentationFcn
from trainers.data_facts import prepare_once
from trainers.images.annotated import AnnotatedSamples, TargetReader, write_annotated
from trainers.images.coco import Annotated, Annotation, FilesBelow, load_annotated
from trainers.images.dataset import PictureDataset, sample_seed, seeded
from trainers.images.marking_networks import SEGMENTATION, Recipe, build_marking_network, find_recipe, save_marking_network, saved_statistics
from trainers.images.masks import decode_mask, draw_mask, encode_mask, mask_name, outline_problem, read_mask
from trainers.images.transforms import IGNORED, build_evaluation_transform, build_training_transform, normalised
from trainers.models.batch_norm import set_batch_norm
from trainers.reading.rows import BadRows
from trainers.sources import locate
from trainers.tasks import Batch, Sample, SampleKey

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

BACKGROUND = "background"
MOST_CATEGORIES = IGNORED
"""Their numbers are bytes, and the last says that a pixel does not count."""


def build_task(experiment: Experiment) -> SegmentationFcnTask:
    """Returns the task with its masks drawn; ranks that call this together share one preparation."""
    return SegmentationFcnTask(experiment, *prepare_once(experiment, prepare))


class SegmentationFcnTask(AnnotatedSamples):
    """See trainers.tasks.Task for what each method promises; the loss is a pixel's."""

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, SegmentationFcn)
        super().__init__(experiment, folder, info, experiment.task.channels)
        self.options = experiment.task
        self.collate = collate_masked

    @cached_property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel that pixels are normalised with."""
        options, half = self.options, [0.5] * self.options.channels
        if options.mean is not None and options.std is not None:
            return options.mean, options.std
        mean, std = saved_statistics(self._experiment.model) or (half, half)
        return (mean, std) if len(mean) == options.channels else (half, half)

    def dataset(self, split: str) -> Dataset[Sample]:
        transform = build_training_transform(self.options) if split == "train" else build_evaluation_transform(self.options)
        return MaskedPictures(self.annotated(split), transform, self._experiment.seed)

    def build_model(self) -> nn.Module:
        model = self._experiment.model
        if self._recipe.torchvision is not None and self.options.channels != 3:
            raise ConfigError(Problem(f"torchvision's {self._recipe.torchvision} sees 3 channels", key="task.channels", fix="task.channels=3"))
        network, notes = build_marking_network(model, SEGMENTATION, self._recipe, self._experiment.seed)
        self.notes += notes
        return set_batch_norm(network, model.batch_norm)

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        logits, auxiliary = self._logits(model, batch)
        loss = _pixel_losses(logits, batch["mask"], label_smoothing).sum()
        if auxiliary is not None:
            loss = loss + self.options.auxiliary_loss * _pixel_losses(auxiliary, batch["mask"], label_smoothing).sum()
        return loss, _counts(batch["mask"]).sum()

    def batch_count(self, batch: Batch) -> int:
        return int(_counts(batch["mask"]).sum())

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        logits, _ = self._logits(model, batch)
        losses = _pixel_losses(logits, batch["mask"]).flatten(1).sum(1)
        return losses, _counts(batch["mask"]).sum(), (logits.argmax(dim=1), batch["mask"].long())

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

        num_classes = len(self.label_names)
        return MetricCollection(
            {
                "miou": MulticlassJaccardIndex(num_classes, average="macro", ignore_index=IGNORED),  # of the categories that occur
                "pixel_accuracy": MulticlassAccuracy(num_classes, average="micro", ignore_index=IGNORED),
                "category_iou": MulticlassJaccardIndex(num_classes, average="none", ignore_index=IGNORED),
            }
        )

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        """Writes the picture as an evaluation sees it beside its mask, and returns a link to it in Markdown."""
        from trainers.images.drawings import draw_masks

        sample = MaskedPictures(self.annotated(split), build_evaluation_transform(self.options), self._experiment.seed)[0, index]
        path = folder / f"{split}-{index}.png"
        draw_masks(path, [(sample["pixels"], sample["mask"])], self.label_names, ("picture", "mask"))
        return f"![{split} {index}]({folder.name}/{path.name})"

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Shows pictures from all over a split, what is true of them, and what the network says."""
        from trainers.images.drawings import NUM_SHOWN, draw_masks, spread

        rows = []
        for index in spread(self.num_samples[split], NUM_SHOWN):
            batch = place(self.collate([self.dataset(split)[0, index]]))
            rows.append((batch["pixels"][0].cpu(), batch["mask"][0].cpu(), self._logits(model, batch)[0][0].argmax(dim=0).cpu()))
        if folder is None:
            return ""
        path = folder / f"{split}-masks.png"
        draw_masks(path, rows, self.label_names, ("picture", "truth", "prediction"))
        told = f"Pictures of the {split} split. What is not coloured is not labelled, and does not count."
        return f"## Masks\n\n{told}\n\n![masks]({folder.name}/{path.name})\n"

    def save(self, model: nn.Module, folder: Path, weights: Mapping[str, Tensor]) -> None:
        mean, std = self.statistics
        facts = {"label_names": self.label_names, "mean": mean, "std": std, "task": self.options.model_dump(mode="json")}
        save_marking_network(self._recipe, facts, folder, weights)

    @cached_property
    def _recipe(self) -> Recipe:
        sizes = {"num_classes": len(self.label_names), "aux_loss": self.options.auxiliary_loss > 0}
        return find_recipe(self._experiment.model, SEGMENTATION, sizes)

    def _logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Returns the logits of the head, float32 [B, C, size, size], and of the auxiliary one if it is trained.

        Raises:
            ConfigError: the network gives something else.
        """
        output: Any = model(normalised(batch["pixels"], *self.statistics))
        logits = output.get("out") if isinstance(output, Mapping) else output
        wanted = (len(batch["mask"]), len(self.label_names), *batch["mask"].shape[1:])
        if not isinstance(logits, Tensor) or logits.shape != wanted:
            given = f"a tensor of {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(output).__name__}"
            what = f"the network gives {given} for a batch, and {wanted} is wanted: (pictures, categories, height, width)"
            raise ConfigError(Problem(what, key="model.class", fix="a network that gives the categories of each pixel"))
        auxiliary = output.get("aux") if isinstance(output, Mapping) and self.options.auxiliary_loss else None
        return logits.float(), None if auxiliary is None else auxiliary.float()


class MaskedPictures(Dataset[Sample]):
    """Samples with `pixels`, uint8 [C, size, size], and `mask`, uint8 [size, size], changed alike as (seed, epoch, index) says."""

    def __init__(self, pictures: PictureDataset, transform: Callable[[Any], Any], seed: int) -> None:
        self._pictures, self._transform, self._seed = pictures, transform, seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, key: SampleKey) -> Sample:
        pixels, encoded = self._pictures.read(key[1])
        whole = {"pixels": tv_tensors.Image(pixels), "mask": tv_tensors.Mask(torch.from_numpy(decode_mask(encoded)))}
        changed = seeded(self._transform, whole, sample_seed(self._seed, *key))
        return {name: part.as_subclass(Tensor) for name, part in changed.items()}


def collate_masked(samples: list[Sample]) -> dict[str, Tensor]:
    """Returns pixels, uint8 [B, C, size, size], and mask, uint8 [B, size, size]."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in ("pixels", "mask")}


def prepare(experiment: Experiment, folder: Path) -> None:
    """Reads the annotation files, draws or reads the mask of each picture, and writes all into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad picture and annotation.
    """
    options, data = experiment.task, experiment.data
    assert isinstance(options, SegmentationFcn)
    bad_rows = BadRows(data.on_bad_row)
    annotated = load_annotated(data, options, bad_rows, masks=options.masks)
    first = [BACKGROUND] if options.unlabelled == "background" else []
    if first and BACKGROUND in annotated.label_names:
        what = f"a category that is learned is called {BACKGROUND!r} too"
        raise ConfigError(Problem(what, key="task.unlabelled", fix="task.unlabelled=ignore; or task.label_names=[...] without it"))
    label_names = first + annotated.label_names
    if len(label_names) > MOST_CATEGORIES:
        what = f"{len(label_names)} categories, and masks have room for {MOST_CATEGORIES}"
        raise ConfigError(Problem(what, key="task.label_names", fix="task.label_names=[...] of those that matter"))
    if options.masks is not None:
        _check_ids(annotated, options.masks)
    reader = MaskReader(options, label_names, annotated, Path(str(locate(data.source, "data.source"))))
    write_annotated(experiment, folder, annotated, reader, options.channels, label_names, bad_rows)


def _check_ids(annotated: Annotated, masks: str) -> None:
    """Raises ConfigError for a category that no mask file can hold: no picture would have it."""
    for split, names in annotated.names_by_id.items():
        wrong = next((category for category, name in names.items() if name in annotated.label_names and not 0 <= category < 256), None)
        if wrong is not None:
            what = f"the category {names[wrong]!r} has the id {wrong}, and the pictures of {masks} hold ids from 0 to 255"
            fix = "other ids; or task.masks=null, which draws the outlines"
            raise ConfigError(Problem(what, annotated.splits[split].origin, "task.masks", fix=fix))


class MaskReader(TargetReader):
    """Makes masks, as PNG."""

    def __init__(self, options: SegmentationFcn, label_names: Sequence[str], annotated: Annotated, root: Path) -> None:
        import pyarrow as pa

        self.label_kind = pa.large_binary()
        self._numbers = {name: number for number, name in enumerate(label_names)}
        self._unlabelled = 0 if options.unlabelled == "background" else IGNORED
        self._masks = None if options.masks is None else FilesBelow(root / options.masks, "task.masks")
        self._numbers_by_id = {
            split: {category: self._numbers.get(name, self._unlabelled) for category, name in names.items()}
            for split, names in annotated.names_by_id.items()
        }

    def read(
        self, split: str, picture: str, objects: Sequence[Annotation], size: tuple[int, int], say: Callable[[str | None, str], None]
    ) -> bytes | None:
        """Returns the mask, None where no pixel of it counts."""
        if self._masks is None:
            problems = {thing.place: outline_problem(thing.outline, size) for thing in objects}
            for place, problem in problems.items():
                if problem:
                    say(place, problem)
            mask = draw_mask([thing for thing in objects if not problems[thing.place]], self._numbers, size, self._unlabelled)
        else:
            path, problem = self._masks.find(mask_name(picture))
            found = problem if path is None else read_mask(path, size, self._numbers_by_id[split], self._unlabelled)
            if isinstance(found, str):
                say(None, f"has no mask: {found}" if path is None else f"its mask {path} {found}")
                return None
            mask = found
        return encode_mask(mask) if (mask != IGNORED).any() else None

    def numbers_in(self, target: bytes) -> set[int]:
        return set(decode_mask(target).ravel().tolist()) - {IGNORED}


def _pixel_losses(logits: Tensor, mask: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Returns float32 [B, size, size]; 0 where the mask says nothing."""
    return functional.cross_entropy(logits, mask.long(), reduction="none", ignore_index=IGNORED, label_smoothing=label_smoothing)


def _counts(mask: Tensor) -> Tensor:
    """Returns the labelled pixels of each picture, int64 [B]; one where a crop has none, so that nothing is divided by nothing."""
    return (mask != IGNORED).flatten(1).sum(1).clamp(min=1)
