"""The tutorials' own methods of segmentation and detection, in plain PyTorch and torchvision: what the numbers of docs/tasks.md stand beside.

FULLRANK_DATA=../shared/data python -m benchmarks.tutorial_marking segmentation | detection --limit 8 --epochs 30 --size 192

Of coco128: trained on the first pictures of train2017, and judged on the same. Each is the tutorial's loop as a person types it, one
process, one thread, a constant learning rate; the networks and their ImageNet weights are those of our experiments.

- segmentation: masks from the PNG files, the mean loss of a batch's labelled pixels, Adam lr 1e-3; the mean IoU of the categories that occur.
- detection: torchvision's own Faster R-CNN on whole batches, the sum of its four losses, SGD lr 0.005, momentum 0.9; COCO mAP by torchmetrics.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as change

from launch.config.load import load_experiment
from trainers.images.marking_networks import DETECTION, SEGMENTATION, Family, build_marking_network, find_recipe
from trainers.images.picture_by_picture import with_frozen_batch_norm

COCO = Path(os.environ.get("FULLRANK_DATA", "../shared/data")) / "coco128"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IGNORED = 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--limit", type=int, default=8, help="so many pictures")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=192)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    METHODS[options.method](options)


def segmentation(options: argparse.Namespace) -> None:
    content = read_json()
    numbers = {category["id"]: number for number, category in enumerate(content["categories"])}
    table = torch.tensor([numbers.get(value, IGNORED) for value in range(256)])
    pixels, masks = [], []
    for image in content["images"][: options.limit]:
        name, edges = Path(image["file_name"]), [options.size, options.size]
        mask = np.array(Image.open(COCO / "semantic_segmentation/masks/train2017" / f"{name.stem}.png"))
        pixels.append(change.normalize(change.resize(read_picture(name), edges) / 255, MEAN, STD))
        masks.append(change.resize(table[torch.from_numpy(mask).long()][None], edges, change.InterpolationMode.NEAREST)[0])
    inputs, truth = torch.stack(pixels), torch.stack(masks)
    model = build("segmentation_fcn", SEGMENTATION, len(numbers))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in epochs(options):
        step(optimizer, functional.cross_entropy(model(inputs[batch]), truth[batch], ignore_index=IGNORED))
    with torch.inference_mode():
        predicted = torch.cat([model.eval()(part).argmax(1) for part in inputs.split(8)])
    counts = truth != IGNORED
    either = [(((predicted == n) | (truth == n)) & counts).sum() for n in range(len(numbers))]
    both = [((predicted == n) & (truth == n)).sum() for n in range(len(numbers))]
    iou = torch.stack([one / all_ for one, all_ in zip(both, either, strict=True) if all_])
    print(f"mIoU {iou.mean():.4f}, pixel accuracy {(predicted == truth)[counts].float().mean():.4f} on the {len(inputs)} pictures themselves")


def detection(options: argparse.Namespace) -> None:
    from torchmetrics.detection import MeanAveragePrecision

    content = read_json()
    numbers = {category["id"]: number for number, category in enumerate([c for c in content["categories"] if c["isthing"]], start=1)}
    segments = {record["image_id"]: record["segments_info"] for record in content["annotations"]}
    pictures, targets = [], []
    for image in content["images"][: options.limit]:
        things = [s for s in segments[image["id"]] if s["category_id"] in numbers and not s["iscrowd"]]
        boxes = torch.tensor([s["bbox"] for s in things], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        pictures.append(read_picture(Path(image["file_name"])) / 255)
        targets.append({"boxes": boxes, "labels": torch.tensor([numbers[s["category_id"]] for s in things], dtype=torch.int64)})
    model: Any = with_frozen_batch_norm(build("detection_faster_rcnn", DETECTION, len(numbers) + 1))
    model.transform.min_size, model.transform.max_size = (options.size,), 2 * options.size
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9, weight_decay=5e-4)
    for batch in epochs(options):
        step(optimizer, sum(model([pictures[n] for n in batch], [targets[n] for n in batch]).values()))
    metric = MeanAveragePrecision()
    with torch.inference_mode():
        metric.update([found for picture in pictures for found in model.eval()([picture])], targets)
    values = metric.compute()
    print(f"mAP {values['map']:.4f}, mAP at 0.50 {values['map_50']:.4f} on the {len(pictures)} pictures themselves")


def build(experiment: str, family: Family, num_classes: int) -> nn.Module:
    model = load_experiment(experiment, []).experiment.model
    return build_marking_network(model, family, find_recipe(model, family, {"num_classes": num_classes}), seed=0)[0].train()


def epochs(options: argparse.Namespace) -> Iterator[list[int]]:
    """Yields the numbers of each batch, and prints the time of each tenth epoch."""
    started = time.perf_counter()
    for epoch in range(options.epochs):
        for batch in torch.randperm(options.limit).split(options.batch):
            yield batch.tolist()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: {time.perf_counter() - started:.0f} s, {time.process_time():.0f} s of CPU", flush=True)


def step(optimizer: Any, loss: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def read_json() -> dict[str, Any]:
    return dict(json.loads((COCO / "panoptic_segmentation/annotations/panoptic_train2017.json").read_text()))


def read_picture(name: Path) -> Tensor:
    """Returns uint8 [3, H, W]."""
    return torch.from_numpy(np.array(Image.open(COCO / "images/train2017" / name).convert("RGB"))).permute(2, 0, 1)


METHODS: dict[str, Callable[[argparse.Namespace], None]] = {"segmentation": segmentation, "detection": detection}

if __name__ == "__main__":
    main()
