"""Detection: boxes beside their pictures, losses that are a picture's own, COCO's average precision on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from launch.config.errors import ConfigError
from tests.tiny_annotated import annotated_experiment, annotation, tiny_coco
from tests.trainers.images.test_coco import change
from trainers.images.markers import load_detector
from trainers.images.mean_average_precision import CocoAveragePrecision
from trainers.images.picture_by_picture import with_frozen_batch_norm
from trainers.tasks.detection_faster_rcnn import DetectionFasterRcnnTask, build_task, targets_of

KWARGS = {"width": 0.1, "pyramid": 8, "representation": 16, "min_size": 48, "max_size": 64, "rpn_pre_nms_top_n_train": 50}
TINY = {"class": "trainers.architectures.mobilenet_markers:MobileNetFasterRcnn", "kwargs": KWARGS}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return tiny_coco(tmp_path / "coco")


def built(folder: Path, model: dict[str, Any] = TINY, data: dict[str, Any] | None = None, **task: Any) -> DetectionFasterRcnnTask:
    return build_task(annotated_experiment(folder, model, {"kind": "detection_faster_rcnn"} | task, data or {}))


def test_boxes_are_mirrored_with_their_picture_as_seed_epoch_and_index_say(coco):
    task = built(coco, flip=0.5)
    plain, mirrored = task.dataset("validation")[0, 0], built(coco, flip=1.0).dataset("train")[0, 0]
    assert plain["labels"].tolist() in ([1], [2])  # 0 is torchvision's background
    (left, top, right, bottom), pixels = mirrored["boxes"][0].int().tolist(), mirrored["pixels"]
    assert (right - left, bottom - top) == (10, 10)
    assert (pixels.max(dim=0).values > 100).nonzero().aminmax(dim=0).min.tolist() == [top, left]
    seen = [bool((task.dataset("train")[epoch, 0]["boxes"] == mirrored["boxes"]).all()) for epoch in range(12)]
    assert 0 < sum(seen) < 12
    assert seen == [bool((task.dataset("train")[epoch, 0]["boxes"] == mirrored["boxes"]).all()) for epoch in range(12)]


def test_a_batch_has_room_for_its_largest_picture_and_its_most_boxes(coco, tmp_path):
    def edit(content):
        del content["images"][0]["width"]
        content["annotations"] = [record for record in content["annotations"] if record["image_id"] != 102]
        content["annotations"][1]["iscrowd"] = 1

    with Image.open(coco / "pictures/train_0.png") as picture:
        wide = Image.new("RGB", (40, 24))
        wide.paste(picture)
        wide.save(coco / "pictures/train_0.png")
    change(coco, edit)
    task = built(coco)
    batch = task.collate([task.dataset("train")[0, index] for index in (0, 1, 2)])
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "pixels": (3, 3, 24, 40),
        "size": (3, 2),
        "boxes": (3, 2, 4),
        "labels": (3, 2),
        "is_crowd": (3, 2),
        "index": (3,),
        "seed": (3,),
    }
    assert next(iter(batch)) == "pixels"  # whose length counts the samples
    assert batch["size"].tolist() == [[24, 40], [24, 32], [24, 32]]
    assert [len(target["labels"]) for target in targets_of(batch)] == [1, 1, 0]
    assert [len(target["labels"]) for target in targets_of(batch, with_crowds=True)] == [1, 2, 0]


def test_a_pictures_loss_does_not_depend_on_its_batch_nor_on_the_global_random_state(coco):
    task = built(coco)
    network, samples = task.build_model(), task.dataset("train")
    torch.manual_seed(1)
    together, count = task.train_loss(network, task.collate([samples[0, index] for index in range(4)]), 0.0)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    alone = [float(task.train_loss(network, task.collate([samples[0, index]]), 0.0)[0].detach()) for index in range(4)]
    assert float(together.detach()) == pytest.approx(sum(alone), rel=1e-6)
    assert (int(count), task.batch_count(task.collate([samples[0, 0]]))) == (4, 1)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    losses, _, (indices, found, truths) = task.evaluate_batch(network.eval(), task.collate([samples[0, index] for index in range(4)]))
    assert losses.detach().tolist() == pytest.approx(alone, rel=1e-5)
    assert (indices.tolist(), len(found), len(truths)) == ([0, 1, 2, 3], 4, 4)
    assert not network.rpn.training


def test_every_parameter_gets_a_gradient_from_a_picture_without_boxes(coco):
    def empty(content):
        content["annotations"] = [record for record in content["annotations"] if record["image_id"] != 100]

    change(coco, empty)
    task = built(coco)
    network = task.build_model()
    task.train_loss(network, task.collate([task.dataset("train")[0, 0]]), 0.0)[0].backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []  # DDP waits for all of them
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_frozen_batch_norm_is_batch_norm_in_evaluation_mode():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    layer(torch.randn(8, 3, 5, 5))
    expected, pixels = layer.eval(), torch.randn(2, 3, 5, 5)
    wanted = expected(pixels)
    frozen = with_frozen_batch_norm(layer).train()
    assert isinstance(frozen[1], FrozenBatchNorm2d)
    assert torch.allclose(frozen(pixels), wanted, atol=1e-6)


def test_boxes_are_not_rounded_by_half_precision(coco):
    task = built(coco)
    network, batch = task.build_model(), task.collate([task.dataset("train")[0, 0]])
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = task.train_loss(network, batch, 0.0)
        _, _, (_, (found,), _) = task.evaluate_batch(network.eval(), batch)
    assert (loss.dtype, found["boxes"].dtype, found["scores"].dtype) == (torch.float32,) * 3


def boxes(*rows: tuple[float, ...]) -> dict[str, torch.Tensor]:
    """Returns boxes of (left, top, right, bottom, label, score or is_crowd)."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return {"boxes": table[:, :4].float(), "labels": table[:, 4].long(), "scores": table[:, 5].float(), "is_crowd": table[:, 5] > 0}


def test_average_precision_has_cocos_values_and_leaves_crowds_alone():
    metric = CocoAveragePrecision()
    truth = boxes((0, 0, 10, 10, 1, 0), (20, 0, 30, 10, 2, 0), (0, 20, 30, 40, 1, 1))
    found = boxes((0, 0, 10, 10, 1, 0.9), (20, 0, 30, 7, 2, 0.8), (1, 21, 9, 29, 1, 0.7))
    metric.update(torch.tensor([5]), [found], [truth])
    values = {name: float(value) for name, value in metric.compute().items()}
    # The second box overlaps by 0.7: right at 0.50, 0.55, ... 0.70, five thresholds of ten. The third lies in a crowd.
    assert values == pytest.approx({"map": (1 + 0.5) / 2, "map_50": 1.0, "map_75": 0.5, "mar_100": 0.75}, abs=1e-3)


def test_average_precision_counts_each_picture_of_each_rank_once():
    truths = [boxes((0, 0, 10, 10, 1, 0)), boxes((0, 0, 8, 8, 1, 0), (10, 10, 20, 20, 2, 0)), boxes()]
    founds = [boxes((0, 0, 10, 9, 1, 0.6)), boxes((0, 0, 8, 8, 1, 0.9)), boxes((3, 3, 9, 9, 2, 0.95))]
    whole, first, second = CocoAveragePrecision(), CocoAveragePrecision(), CocoAveragePrecision()
    whole.update(torch.arange(3), founds, truths)
    first.update(torch.tensor([0]), founds[:1], truths[:1])
    second.update(torch.tensor([1, 2]), founds[1:], truths[1:])
    for name in ("found", "wanted"):  # what gathering does
        setattr(first, name, torch.cat([*getattr(first, name), *getattr(second, name)]))
    assert first.compute() == whole.compute()


def test_boxes_that_are_none_are_named_with_their_place_and_can_be_left_out(coco):
    def edit(content):
        content["annotations"] += [annotation(100, 25, 2, 3), annotation(101, 2, 2, 7, edge=0)]

    change(coco, edit)
    with pytest.raises(ConfigError) as error:
        built(coco)
    text = str(error.value)
    place = f"{coco}/train.json: annotations"
    assert f"{place}[9] (in train_0.png): its bbox [25, 2, 10, 10] reaches 3 pixels beyond the picture of 32 x 24" in text
    assert f"{place}[10] (in train_1.png): its bbox [2, 2, 0, 0] has no area: [left, top, width, height]" in text
    task = built(coco, data={"on_bad_row": "skip"})
    assert task.num_samples["train"] == 6
    assert len(task.dataset("train")[0, 0]["labels"]) == 1
    assert task.notes[0] == "2 pictures or annotations skipped (data.on_bad_row=skip):"


def test_a_split_without_any_box_is_refused(coco):
    change(coco, lambda content: content["annotations"].clear())
    with pytest.raises(ConfigError, match=r"train.json: data.splits.train: no picture of the train split has anything that is learned"):
        built(coco)


def test_what_is_saved_is_used_and_trained_on(coco, tmp_path):
    task = built(coco, min_score=0.0, size=40, max_size=50)
    network = task.build_model()
    assert (network.transform.min_size, network.transform.max_size) == ((40,), 50)
    task.save(network, tmp_path / "model", network.state_dict())
    detect = load_detector(tmp_path / "model")
    assert (detect.network.transform.min_size, detect.network.transform.max_size) == ((40,), 50)
    found = detect(coco / "pictures/val_0.png")
    assert {thing.name for thing in found} <= {"green", "red"}
    assert all(0 <= thing.box[0] <= thing.box[2] <= 32 and 0 <= thing.box[1] <= thing.box[3] <= 24 for thing in found)
    again = built(coco, {"source": str(tmp_path / "model")})
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in again.build_model().state_dict().items())
    other = built(coco, {"source": str(tmp_path / "model")}, label_names=["red"])
    assert other.build_model().roi_heads.box_predictor.cls_score.out_features == 2
    assert other.notes[-1] == f"new, not in {tmp_path}/model: roi_heads.box_predictor"


def test_other_networks_and_batch_norm_that_is_not_frozen_are_refused(coco):
    with pytest.raises(ConfigError, match=r"torchvision .* has no detection 'retinanet_resnet50_fpn'"):
        built(coco, {"source": "torchvision://retinanet_resnet50_fpn?weights=null"}).build_model()
    with pytest.raises(ConfigError, match="MobileNetFcn is no Faster R-CNN of torchvision's kind"):
        built(coco, {"class": "trainers.architectures.mobilenet_markers:MobileNetFcn", "kwargs": {"width": 0.1}}).build_model()
    with pytest.raises(ConfigError, match=r"model.batch_norm: is 'sync', and this task freezes BatchNorm always"):
        built(coco, TINY | {"batch_norm": "sync"}).build_model()


def test_the_report_shows_true_boxes_and_found_ones(coco, tmp_path):
    task = built(coco, min_score=0.0)
    network = task.build_model().eval()
    with torch.no_grad():
        text = task.illustrate(network, "validation", lambda batch: batch, tmp_path / "figures")
    assert "Found: scores of 0 and more" in text
    assert "![boxes](figures/validation-boxes.png)" in text
    assert task.show_sample("validation", 1, tmp_path / "figures") == "![validation 1](figures/validation-1.png)"
    assert (tmp_path / "figures/validation-boxes.png").stat().st_size > 1000
