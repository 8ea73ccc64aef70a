"""Pictures a second and core: fullrank's way into the network against torchvision's own, side by side.

python -m benchmarks.images DIR [--size 224] [--resize 256] [--crop center|random|resized] [--rounds 7] [--workers 0]

DIR holds CLASS/*.jpg. Both sides read, decode, scale, cut, mirror, normalise and batch the same number of pictures, on one thread a
process: torchvision as its documentation does it (ImageFolder, v2 transforms on Pillow images, DataLoader), fullrank as its ranks do.
Rounds are interleaved, the first of each is thrown away, and the median of the others counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from launch.config.experiment import Experiment
from launch.config.resolve import resolve_batches
from trainers.images.samples import prepare
from trainers.images.transforms import normalised
from trainers.loader import build_step_loader
from trainers.sampler import RankSteps
from trainers.tasks.image_classification import ImageClassificationTask

BATCH = 32
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main() -> None:
    """Prints every round, the medians, and their quotient."""
    options = parse_arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        task, seconds = prepared_task(options, Path(folder))
        num_steps = min(options.num_pictures, task.num_samples["train"]) // BATCH
        sides = {"torchvision": lambda: plain_batches(options, num_steps), "fullrank": lambda: our_batches(task, options, num_steps)}
        print(f"{task.num_samples['train']} pictures looked at once in {seconds:.1f} s; {num_steps} batches of {BATCH}, {options.workers} workers")
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(options.rounds + 1):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                rate = pictures_a_second(sides[name], num_steps) / max(options.workers, 1)
                if number:
                    rates[name].append(rate)
                    print(f"round {number}  {name:<12} {rate:8.1f} pictures/s/core", flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(*(f"{name} {value:.1f}" for name, value in medians.items()), f"quotient {medians['fullrank'] / medians['torchvision']:.2f}", sep="  ")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--crop", choices=["center", "random", "resized"], default="random")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--num-pictures", type=int, default=960)
    return parser.parse_args()


def prepared_task(options: argparse.Namespace, folder: Path) -> tuple[ImageClassificationTask, float]:
    """Returns fullrank's task over all pictures of the folder, and the seconds that looking at them took."""
    cut = {"size": options.size, "resize": options.resize, "crop": options.crop}
    experiment = Experiment.model_validate(
        {
            "name": "images",
            "model": {"source": "torchvision://resnet50?weights=null"},
            "task": {"kind": "image_classification", **cut, "flip": 0.5, "mean": MEAN, "std": STD},
            "data": {"source": str(options.folder.absolute()), "format": "image_folder", "splits": {"train": ".", "validation": None}},
            "train": {"duration": "1 epoch", "global_batch_size": BATCH},
            "optimizer": {"lr": 0.1},
        }
    )
    started = time.perf_counter()
    prepare(experiment, folder)
    seconds = time.perf_counter() - started
    return ImageClassificationTask(experiment, folder, json.loads((folder / "info.json").read_text())), seconds


def plain_batches(options: argparse.Namespace, num_steps: int) -> Iterable[Any]:
    """torchvision's way: float32 [32, 3, size, size] batches."""
    cut = {
        "center": [v2.Resize(options.resize), v2.CenterCrop(options.size)],
        "random": [v2.Resize(options.resize), v2.RandomCrop(options.size)],
        "resized": [v2.RandomResizedCrop(options.size)],
    }[options.crop]
    steps = [*cut, v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    data = ImageFolder(str(options.folder), v2.Compose(steps))
    chosen = Subset(data, torch.randperm(len(data))[: num_steps * BATCH].tolist())
    return DataLoader(chosen, batch_size=BATCH, num_workers=options.workers)


def our_batches(task: ImageClassificationTask, options: argparse.Namespace, num_steps: int) -> Iterable[Any]:
    """fullrank's way, normalisation as train_loss does it."""
    arithmetic = resolve_batches(BATCH, 1, BATCH)
    steps = RankSteps(task.num_samples["train"], arithmetic, rank=0, seed=0, first_step=0, total_steps=num_steps)
    for step in build_step_loader(task.dataset("train"), task.collate, steps, options.workers, pin_memory=False):
        for batch in step.batches:
            yield normalised(batch["pixels"], *task.statistics), batch["labels"]


def pictures_a_second(batches: Callable[[], Iterable[Any]], num_steps: int) -> float:
    started = time.perf_counter()
    count = sum(len(labels) for _, labels in batches())
    assert count == num_steps * BATCH, count
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
