"""COCO's mean average precision, on any number of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

_KEPT = ("map", "map_50", "map_75", "mar_100")


class CocoAveragePrecision(Metric):
    """map (over IoU 0.50 to 0.95), map_50, map_75 and mar_100, by torchmetrics and pycocotools.

    torchmetrics' own class gathers picture by picture, and waits for ever where ranks have different numbers of them: here the ranks'
    boxes travel as one row of numbers each, and every rank asks that class about all of them.
    """

    full_state_update = False
    higher_is_better = True
    found: list[Tensor]
    wanted: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("found", [], dist_reduce_fx="cat")
        self.add_state("wanted", [], dist_reduce_fx="cat")

    def update(self, pictures: Tensor, detections: Sequence[Mapping[str, Tensor]], truths: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds pictures.

        Args:
            pictures: a number of each that no other has, int64 [B]; below 2^24, since it travels as float32.
            detections: boxes [N, 4], labels and scores [N] of each picture.
            truths: boxes [N, 4], labels and is_crowd [N] of each picture.
        """
        for picture, found, true in zip(pictures.tolist(), detections, truths, strict=True):
            self.found.append(_rows(picture, found["labels"], found["scores"], found["boxes"]))
            self.wanted.append(_rows(picture, true["labels"], true["is_crowd"], true["boxes"]))

    def compute(self) -> dict[str, Tensor]:
        from torchmetrics.detection import MeanAveragePrecision

        # No gathering in it: what is added is what all ranks have seen.
        judge = MeanAveragePrecision(sync_on_compute=False, distributed_available_fn=lambda: False)
        judge.warn_on_many_detections = False
        found, wanted = (dim_zero_cat(rows).reshape(-1, 7).double().cpu() for rows in (self.found, self.wanted))
        for picture in torch.cat([found[:, 0], wanted[:, 0]]).unique():
            given, true = found[found[:, 0] == picture], wanted[wanted[:, 0] == picture]
            judge.update(
                [{"boxes": given[:, 3:], "labels": given[:, 1].long(), "scores": given[:, 2]}],
                [{"boxes": true[:, 3:], "labels": true[:, 1].long(), "iscrowd": true[:, 2].long()}],
            )
        values = judge.compute()
        return {name: values[name].float() for name in _KEPT}


def _rows(picture: int, labels: Tensor, third: Tensor, boxes: Tensor) -> Tensor:
    """Returns picture, label, score (or whether it is a crowd) and corners of each box, one after another, float32 [7 N].

    In one dimension, as what a rank without any picture brings.
    """
    columns: list[Any] = [torch.full_like(labels, picture), labels, third]
    return torch.cat([torch.stack([column.float() for column in columns], dim=1), boxes.float()], dim=1).flatten()
