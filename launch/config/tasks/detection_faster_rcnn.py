"""Options of object detection."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.base import Metrics
from launch.config.tasks.pictures import AnnotatedPictures


class DetectionFasterRcnn(AnnotatedPictures):
    """Boxes around the objects of a picture, and what they are (Faster R-CNN: Ren et al., NIPS 2015)."""

    SMOOTHS_LABELS = False
    USAGE = (
        "from trainers.images.markers import load_detector",
        'detect = load_detector("{model}")',
        'print(detect("picture.jpg"))',
    )

    kind: Literal["detection_faster_rcnn"] = Field(description="Which task this is; chooses the other keys.")
    size: Annotated[int, Field(ge=16, le=8192)] | None = Field(
        None, description="Shorter edge that a picture is scaled to, in pixels. null: the network's own (800, or 320)."
    )
    max_size: Annotated[int, Field(ge=16, le=8192)] | None = Field(
        None, description="Longer edge that no picture exceeds then, in pixels. null: the network's own (1333, or 640)."
    )
    flip: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="Probability that training mirrors a picture, left to right.")
    min_score: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="Score from which on the report and the saved model show a box; what is measured counts all of them."
    )

    def metrics(self) -> Metrics:
        return {"map": "max", "map_50": "max", "map_75": "max", "mar_100": "max", "loss": "min"}
