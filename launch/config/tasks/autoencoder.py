"""Options of an autoencoder of pictures."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from launch.config.tasks.base import Metrics
from launch.config.tasks.pictures import Pictures


class Autoencoder(Pictures):
    """A picture for itself: the network gives back what it sees, through a bottleneck. Labels are read with the pictures, and not learned."""

    USAGE = (
        "from safetensors.torch import load_file",
        'weights = load_file("{model}/model.safetensors")  # model.weights={model} starts a classifier from them',
        "print(*weights)",
    )
    SMOOTHS_LABELS: ClassVar[bool] = False

    kind: Literal["autoencoder"] = Field(description="Which task this is; chooses the other keys.")

    def metrics(self) -> Metrics:
        return {"loss": "min", "psnr": "max"}
