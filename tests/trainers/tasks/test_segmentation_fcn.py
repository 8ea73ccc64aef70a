"""Segmentation: masks beside their pictures, what a pixel's loss and a category's IoU are, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from launch.config.errors import ConfigError
from tests.tiny_annotated import annotated_experiment, tiny_coco, write_squares
from trainers.images.markers import load_segmenter
from trainers.tasks.segmentation_fcn import SegmentationFcnTask, build_task

TINY = {"class": "trainers.architectures.mobilenet_markers:MobileNetFcn", "kwargs": {"width": 0.1}}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return tiny_coco(tmp_path / "coco")


def built(folder: Path, model: dict[str, Any] = TINY, data: dict[str, Any] | None = None, **task: Any) -> SegmentationFcnTask:
    return build_task(annotated_experiment(folder, model, {"kind": "segmentation_fcn", "size": 32} | task, data or {}))


class Says(nn.Module):
    """Gives the same logits for every pixel."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.logits[None, :, None, None].expand(len(pixels), -1, *pixels.shape[2:])}


def batch_of(task: SegmentationFcnTask, *indices: int) -> dict[str, torch.Tensor]:
    return task.collate([task.dataset("validation")[0, index] for index in indices])


def test_a_picture_and_its_mask_are_changed_alike_and_anew_in_each_epoch(coco):
    task = built(coco, crop="resized", scale=[0.2, 0.6], flip=0.5)
    samples, seen = task.dataset("train"), set()
    for epoch in range(6):
        pixels, mask = samples[epoch, 1]["pixels"].float(), samples[epoch, 1]["mask"]
        assert (pixels.shape, mask.shape, mask.dtype) == ((3, 32, 32), (32, 32), torch.uint8)
        brightest = pixels.max(dim=0).values
        inside = mask != 255
        assert (brightest[inside] > 100).float().mean() > 0.9 if inside.any() else True  # edges are blurred, masks are not
        assert (brightest[~inside] < 100).float().mean() > 0.9
        assert torch.equal(samples[epoch, 1]["mask"], mask)
        seen.add(mask.numpy().tobytes())
    assert len(seen) > 3


def test_unlabelled_pixels_are_ignored_or_background(coco):
    ignoring, background = built(coco), built(coco, unlabelled="background")
    assert (ignoring.label_names, background.label_names) == (["green", "red"], ["background", "green", "red"])
    first, second = (task.dataset("validation")[0, 0]["mask"] for task in (ignoring, background))
    assert set(first.unique().tolist()) < {0, 1, 255}
    assert torch.equal(torch.where(first == 255, 0, first + 1), second)


def test_a_category_that_is_called_as_the_unlabelled_pixels_is_refused(coco):
    for name in ("train.json", "val.json"):
        (coco / name).write_text((coco / name).read_text().replace('"red"', '"background"'))
    with pytest.raises(ConfigError, match=r"task\.unlabelled: a category that is learned is called 'background' too\n    try: "):
        built(coco, unlabelled="background")
    assert built(coco).label_names == ["green", "background"]


def test_where_no_picture_has_an_annotation_it_is_said_why(coco):
    path = coco / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    with pytest.raises(ConfigError, match=r"the train split has no samples; left out: \d+ pictures with nothing that is learned in them"):
        built(coco)


def test_the_loss_is_a_pixels_and_unlabelled_ones_do_not_count(coco):
    task = built(coco)
    batch, model = batch_of(task, 0, 1, 2), Says(1.0, 3.0)
    labelled = batch["mask"][batch["mask"] != 255].long()
    expected = functional.cross_entropy(torch.tensor([[1.0, 3.0]]).expand(len(labelled), -1), labelled, reduction="sum")
    loss, count = task.train_loss(model, batch, 0.0)
    losses, counted, _ = task.evaluate_batch(model, batch)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(losses.sum()) == pytest.approx(float(expected), rel=1e-5)
    assert losses.shape == (3,)
    assert int(count) == int(counted) == task.batch_count(batch) == len(labelled)
    nothing = {"pixels": batch["pixels"][:1], "mask": torch.full((1, 32, 32), 255, dtype=torch.uint8)}
    loss, count = task.train_loss(model, nothing, 0.0)
    assert (float(loss), int(count), task.batch_count(nothing)) == (0.0, 1, 1)


def test_iou_is_the_mean_of_the_categories_that_occur(coco):
    metrics = built(coco).build_metrics()
    truth = torch.tensor([[[0, 0, 0, 1], [1, 1, 255, 255]]])
    metrics.update(torch.tensor([[[0, 0, 1, 1], [1, 0, 0, 1]]]), truth)
    values = metrics.compute()
    assert values["category_iou"].tolist() == pytest.approx([2 / 4, 2 / 4])
    assert (float(values["miou"]), float(values["pixel_accuracy"])) == pytest.approx((0.5, 4 / 6))
    metrics.reset()
    metrics.update(torch.tensor([[[0, 0, 0, 0]]]), torch.tensor([[[0, 0, 255, 255]]]))
    assert float(metrics.compute()["miou"]) == 1.0


def test_masks_of_files_are_category_ids(coco, tmp_path):
    for number in range(6):
        for split in ("train", "val"):
            ids = np.zeros((24, 32), np.uint8)
            ids[:, :8], ids[:, 8:16] = 7, 3
            (coco / "masks").mkdir(exist_ok=True)
            Image.fromarray(ids).save(coco / f"masks/{split}_{number}.png")
    mask = built(coco, masks="masks").dataset("validation")[0, 0]["mask"]
    assert [mask[:, column].unique().tolist() for column in (0, 7, 8, 15, 16, 31)] == [[1], [1], [0], [0], [255], [255]]
    (coco / "masks/val_1.png").unlink()
    with pytest.raises(ConfigError, match=rf"{coco}/pictures/val_1.png: has no mask: there is no val_1.png in {coco}/masks or below it"):
        built(coco, masks="masks")


def test_a_category_that_no_mask_file_can_hold_is_refused(coco):
    for name in ("train.json", "val.json"):
        (coco / name).write_text((coco / name).read_text().replace('"id": 7,', '"id": 300,').replace('"category_id": 7,', '"category_id": 300,'))
    with pytest.raises(ConfigError, match=r"train\.json: task\.masks: the category 'red' has the id 300, and the pictures of masks hold ids"):
        built(coco, masks="masks")
    assert built(coco).label_names == ["green", "red"]


def test_a_picture_that_is_not_the_annotated_one_and_one_that_is_broken_are_named(coco):
    write_squares(coco / "pictures/train_0.png", [], size=(24, 32))
    (coco / "pictures/val_1.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError) as error:
        built(coco)
    text = str(error.value)
    assert f"{coco}/pictures/train_0.png: is 24 x 32, and {coco}/train.json says 32 x 24: it is not the picture that was annotated" in text
    assert f"{coco}/pictures/val_1.png: cannot be decoded" in text
    task = built(coco, data={"on_bad_row": "skip"})
    assert task.num_samples == {"train": 5, "validation": 2}
    assert task.notes[0] == "2 pictures or annotations skipped (data.on_bad_row=skip):"


def test_grey_pictures_and_classes_without_a_sample_are_told(coco):
    with Image.open(coco / "pictures/train_0.png") as picture:
        picture.convert("L").save(coco / "pictures/train_0.png")
    content = json.loads((coco / "train.json").read_text())
    content["categories"].append({"id": 9, "name": "blue"})
    (coco / "train.json").write_text(json.dumps(content))
    assert built(coco).notes == [
        "1 pictures have one channel and become RGB",
        "warning: no sample to train on is of the class blue",
    ]


def test_a_changed_picture_makes_the_data_anew(coco):
    assert built(coco).notes == []
    with Image.open(coco / "pictures/train_0.png") as picture:
        picture.convert("L").save(coco / "pictures/train_0.png")
    assert built(coco).notes == ["1 pictures have one channel and become RGB"]


def test_what_is_saved_is_used_and_trained_on(coco, tmp_path):
    task = built(coco)
    network = task.build_model()
    task.save(network, tmp_path / "model", {name: tensor + 0.25 for name, tensor in network.state_dict().items()})
    segment = load_segmenter(tmp_path / "model")
    shares = segment(coco / "pictures/val_0.png")
    assert (sum(shares.values()), shares.keys() <= {"green", "red"}, segment.mask(coco / "pictures/val_0.png").shape) == (1.0, True, (24, 32))
    again, other = (
        built(coco, {"source": str(tmp_path / "model")}, **chosen) for chosen in ({}, {"label_names": ["red"], "unlabelled": "background"})
    )
    state = again.build_model().state_dict()
    assert torch.equal(state["classifier.4.weight"], network.state_dict()["classifier.4.weight"] + 0.25)
    assert other.build_model().classifier[4].out_channels == 2
    assert again.statistics == task.statistics
    with pytest.raises(ConfigError, match=r"has no network.json of a network that marks pictures"):
        load_segmenter(coco)


def test_a_file_of_a_backbone_leaves_the_rest_new_and_half_a_backbone_is_refused(coco, tmp_path):
    state = built(coco).build_model().state_dict()
    backbone = {name: tensor * 0 + 0.5 for name, tensor in state.items() if name.startswith("backbone.")}
    torch.save(backbone, tmp_path / "backbone.pt")
    task = built(coco, TINY | {"weights": str(tmp_path / "backbone.pt")})
    network = task.build_model()
    assert task.notes == [f"new, not in {tmp_path}/backbone.pt: classifier, classifier.4"]
    assert {float(parameter.detach().mean()) for parameter in network.backbone.parameters()} == {0.5}
    torch.save({name: tensor for name, tensor in backbone.items() if not name.startswith("backbone.18.")}, tmp_path / "backbone.pt")
    with pytest.raises(ConfigError, match=r"has no weights for 5 tensors: backbone.18.0.weight"):
        task.build_model()


@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_torchvisions_networks_train_their_auxiliary_head_or_have_none(coco, auxiliary):
    task = built(coco, {"source": "torchvision://deeplabv3_mobilenet_v3_large?weights=null", "batch_norm": "frozen"}, auxiliary_loss=auxiliary)
    network, batch = task.build_model().eval(), batch_of(task, 0, 1)
    loss, _ = task.train_loss(network, batch, 0.0)
    main = float(task.evaluate_batch(network, batch)[0].sum().detach())
    assert (float(loss.detach()) > main * 1.1) == (auxiliary > 0)
    assert any(name.startswith("aux_classifier") for name, _ in network.named_parameters()) == (auxiliary > 0)


def test_networks_that_do_not_segment_are_refused(coco):
    with pytest.raises(ConfigError, match=r"has no segmentation 'resnet50'; did you mean .*resnet50"):
        built(coco, {"source": "torchvision://resnet50?weights=null"}).build_model()
    task = built(coco)
    with pytest.raises(ConfigError, match=r"the network gives a tensor of \(2, 3072\) for a batch, and \(2, 2, 32, 32\) is wanted"):
        task.train_loss(nn.Flatten(), batch_of(task, 0, 1), 0.0)
    with pytest.raises(ConfigError, match="sees 3 channels"):
        built(coco, {"source": "torchvision://fcn_resnet50?weights=null"}, channels=1).build_model()


def test_the_report_shows_picture_truth_and_prediction(coco, tmp_path):
    task = built(coco)
    text = task.illustrate(Says(1.0, 3.0), "validation", lambda batch: batch, tmp_path / "figures")
    assert "![masks](figures/validation-masks.png)" in text
    assert task.illustrate(Says(1.0, 3.0), "validation", lambda batch: batch, None) == ""
    assert task.show_sample("validation", 1, tmp_path / "figures") == "![validation 1](figures/validation-1.png)"
    with Image.open(tmp_path / "figures/validation-masks.png") as picture:
        assert picture.width > picture.height / 2
