"""Options of semantic segmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.base import Metrics
from launch.config.tasks.pictures import AnnotatedPictures, SquareViews


class SegmentationFcn(SquareViews, AnnotatedPictures):
    """A category for each pixel of a picture (FCN: Long et al., CVPR 2015); also by the other segmentation networks of torchvision."""

    USAGE = (
        "from trainers.images.markers import load_segmenter",
        'segment = load_segmenter("{model}")',
        'print(segment("picture.jpg"))  # the share of each category; segment.mask("picture.jpg"): the category of each pixel',
    )

    kind: Literal["segmentation_fcn"] = Field(description="Which task this is; chooses the other keys.")
    masks: str | None = Field(
        None,
        description="Folder of masks, from data.source on: a grey or palette PNG for each picture, of its name and size, whose pixels are category "
        "ids. null: drawn from the polygons and run lengths of the annotation file.",
    )
    unlabelled: Literal["ignore", "background"] = Field(
        "ignore",
        description="Pixels of no category that is learned. ignore: neither learned nor judged; background: a category of their own, number 0. "
        "Crowds, and pixels of two categories, are always ignored.",
    )
    auxiliary_loss: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight of the loss of a second head on an earlier layer (fcn, deeplabv3); 0: there is none."
    )

    def metrics(self) -> Metrics:
        return {"miou": "max", "pixel_accuracy": "max", "loss": "min"}
