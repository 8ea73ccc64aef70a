"""Object detection by Faster R-CNN, of torchvision or a class of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.tasks import DetectionFasterRcnn
from trainers.data_facts import prepare_once
from trainers.images.annotated import AnnotatedSamples, TargetReader, write_annotated
from trainers.images.boxes import box_problem, corners
from trainers.images.coco import Annotation, Category, load_annotated
from trainers.images.dataset import PictureDataset, sample_seed, seeded
from trainers.images.marking_networks import DETECTION, Recipe, build_marking_network, find_recipe, save_marking_network
from trainers.images.picture_by_picture import Detections, PictureByPicture, Target, set_sizes
from trainers.reading.rows import BadRows
from trainers.tasks import Batch, Sample, SampleKey

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


def build_task(experiment: Experiment) -> DetectionFasterRcnnTask:
    """Returns the task with its boxes checked; ranks that call this together share one preparation."""
    return DetectionFasterRcnnTask(experiment, *prepare_once(experiment, prepare))


class DetectionFasterRcnnTask(AnnotatedSamples):
    """See trainers.tasks.Task for what each method promises.

    The loss of a picture is the sum of the network's own four (of the proposals: object or not, and where; of the boxes: which category, and
    where), each averaged over what is sampled of this picture alone. Category numbers of batches begin at 1: 0 is torchvision's background.
    """

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, DetectionFasterRcnn)
        super().__init__(experiment, folder, info, channels=3)
        self.options = experiment.task
        self.collate = collate_boxed

    def dataset(self, split: str) -> Dataset[Sample]:
        return BoxedPictures(self.annotated(split), self.options.flip if split == "train" else 0.0, self._experiment.seed)

    def build_model(self) -> nn.Module:
        model = self._experiment.model
        if model.batch_norm != "train":
            what = f"is {model.batch_norm!r}, and this task freezes BatchNorm always: a picture goes through by itself"
            raise ConfigError(Problem(what, key="model.batch_norm", fix="delete it"))
        network, notes = build_marking_network(model, DETECTION, self._recipe, self._experiment.seed)
        self.notes += notes
        return set_sizes(PictureByPicture(network), self.options.size, self.options.max_size)

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        losses, _ = self._look(model, batch)
        return losses.sum(), torch.tensor(len(losses), device=losses.device)

    def batch_count(self, batch: Batch) -> int:
        return len(batch["pixels"])

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, list[Detections], list[Target]]]:
        losses, detections = self._look(model, batch)
        return losses, torch.tensor(len(losses), device=losses.device), (batch["index"], detections, targets_of(batch, with_crowds=True))

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection

        from trainers.images.mean_average_precision import CocoAveragePrecision

        return MetricCollection([CocoAveragePrecision()])

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        """Writes the picture with its true boxes, and returns a link to it in Markdown."""
        from trainers.images.drawings import draw_boxes

        sample = BoxedPictures(self.annotated(split), 0.0, self._experiment.seed)[0, index]
        path = folder / f"{split}-{index}.png"
        draw_boxes(path, [(sample["pixels"], [sample])], self.label_names, ("truth",))
        return f"![{split} {index}]({folder.name}/{path.name})"

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Shows pictures from all over a split with their true boxes, and with those that are found."""
        from trainers.images.drawings import NUM_SHOWN, draw_boxes, spread

        rows, least = [], self.options.min_score
        for index in spread(self.num_samples[split], NUM_SHOWN):
            sample = self.dataset(split)[0, index]
            _, (found,) = self._look(model, place(self.collate([sample])))
            rows.append((sample["pixels"], [sample, {name: values[found["scores"] >= least].cpu() for name, values in found.items()}]))
        if folder is None:
            return ""
        path = folder / f"{split}-boxes.png"
        draw_boxes(path, rows, self.label_names, ("truth", "found"))
        return f"## Boxes\n\nPictures of the {split} split. Found: scores of {least:g} and more.\n\n![boxes]({folder.name}/{path.name})\n"

    def save(self, model: nn.Module, folder: Path, weights: Mapping[str, Tensor]) -> None:
        facts = {"label_names": self.label_names, "task": self.options.model_dump(mode="json")}
        save_marking_network(self._recipe, facts, folder, weights)

    @cached_property
    def _recipe(self) -> Recipe:
        return find_recipe(self._experiment.model, DETECTION, {"num_classes": len(self.label_names) + 1})

    def _look(self, model: nn.Module, batch: Batch) -> tuple[Tensor, list[Detections]]:
        pictures = [pixels[:, :height, :width].float() / 255 for pixels, (height, width) in zip(batch["pixels"], batch["size"].tolist(), strict=True)]
        losses, detections = model(pictures, targets_of(batch), batch["seed"].tolist())
        return losses, detections


class BoxedPictures(Dataset[Sample]):
    """Samples of whole pictures, perhaps mirrored as (seed, epoch, index) says.

    `pixels`, uint8 [3, H, W]; `boxes`, float32 [N, 4], corners; `labels`, int64 [N], from 1; `is_crowd`, bool [N]; `index`; and `seed`, of what
    is sampled of the picture in training.
    """

    def __init__(self, pictures: PictureDataset, flip: float, seed: int) -> None:
        self._pictures, self._flip, self._seed = pictures, v2.RandomHorizontalFlip(flip), seed

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, key: SampleKey) -> Sample:
        pixels, target = self._pictures.read(key[1])
        seed = sample_seed(self._seed, *key)
        corners = torch.tensor(target["boxes"], dtype=torch.float32).reshape(-1, 4)
        boxes = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=pixels.shape[-2:])
        changed = seeded(self._flip, {"pixels": tv_tensors.Image(pixels), "boxes": boxes}, seed)
        labels = torch.tensor(target["labels"], dtype=torch.int64) + 1
        is_crowd = torch.tensor(target["is_crowd"], dtype=torch.bool)
        return {name: part.as_subclass(Tensor) for name, part in changed.items()} | {
            "labels": labels,
            "is_crowd": is_crowd,
            "index": key[1],
            "seed": seed,
        }


def collate_boxed(samples: list[Sample]) -> dict[str, Tensor]:
    """Returns a batch padded to its largest picture and its most boxes.

    pixels, uint8 [B, 3, H, W]; size, int64 [B, 2], height and width; boxes, float32 [B, N, 4]; labels, int64 [B, N], 0 where there is no box;
    is_crowd, bool [B, N]; index and seed, int64 [B].
    """
    sizes = torch.tensor([sample["pixels"].shape[-2:] for sample in samples])
    most = max(len(sample["labels"]) for sample in samples)
    pixels = torch.zeros(len(samples), 3, *sizes.max(dim=0).values.tolist(), dtype=torch.uint8)
    boxes, labels = torch.zeros(len(samples), most, 4), torch.zeros(len(samples), most, dtype=torch.int64)
    is_crowd = torch.zeros(len(samples), most, dtype=torch.bool)
    for number, sample in enumerate(samples):
        height, width, count = *sizes[number].tolist(), len(sample["labels"])
        pixels[number, :, :height, :width] = sample["pixels"]
        boxes[number, :count], labels[number, :count], is_crowd[number, :count] = sample["boxes"], sample["labels"], sample["is_crowd"]
    numbers = {name: torch.tensor([sample[name] for sample in samples], dtype=torch.int64) for name in ("index", "seed")}
    return {"pixels": pixels, "size": sizes, "boxes": boxes, "labels": labels, "is_crowd": is_crowd, **numbers}


def targets_of(batch: Batch, with_crowds: bool = False) -> list[Target]:
    """Returns boxes, labels and is_crowd of each picture; crowds are not learned, and a box found in one is not counted against anybody."""
    is_there = (batch["labels"] > 0) & (with_crowds | ~batch["is_crowd"])
    return [{name: batch[name][number][chosen] for name in ("boxes", "labels", "is_crowd")} for number, chosen in enumerate(is_there)]


def prepare(experiment: Experiment, folder: Path) -> None:
    """Reads the annotation files, checks the boxes of each picture, and writes all into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad picture and annotation.
    """
    options, data = experiment.task, experiment.data
    assert isinstance(options, DetectionFasterRcnn)
    bad_rows = BadRows(data.on_bad_row)
    annotated = load_annotated(data, options, bad_rows, may_learn=is_thing)
    write_annotated(experiment, folder, annotated, BoxReader(annotated.label_names), 3, annotated.label_names, bad_rows)


def is_thing(category: Category) -> bool:
    """Returns whether a category has objects that can be counted: a panoptic file says so, and has others (sky, grass) beside."""
    return bool(category.get("isthing", 1))


class BoxReader(TargetReader):
    """Makes {boxes, labels, is_crowd}."""

    def __init__(self, label_names: Sequence[str]) -> None:
        import pyarrow as pa

        lists = {"boxes": pa.list_(pa.list_(pa.float32())), "labels": pa.list_(pa.int64()), "is_crowd": pa.list_(pa.bool_())}
        self.label_kind = pa.struct(list(lists.items()))
        self._numbers = {name: number for number, name in enumerate(label_names)}

    def read(
        self, split: str, picture: str, objects: Sequence[Annotation], size: tuple[int, int], say: Callable[[str | None, str], None]
    ) -> dict[str, list[Any]]:
        """Returns the boxes without problems: none is a target too."""
        problems = {thing.place: box_problem(thing.box, size) for thing in objects}
        for place, problem in problems.items():
            if problem:
                say(place, problem)
        good = [thing for thing in objects if not problems[thing.place]]
        labels, is_crowd = [self._numbers[thing.label] for thing in good], [thing.is_crowd for thing in good]
        return {"boxes": [corners(thing.box, size) for thing in good], "labels": labels, "is_crowd": is_crowd}

    def numbers_in(self, target: dict[str, list[Any]]) -> set[int]:
        return set(target["labels"])
