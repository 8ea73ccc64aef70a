"""Options of an autoencoder of pictures."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

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
    hidden: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Probability that a square of a training picture is hidden from the network, which has to give it back all the same. "
        "0: the network sees whole pictures, as it does in an evaluation.",
    )
    hidden_size: int = Field(4, ge=1, description="Edge of such a square, in pixels.")

    @property
    def is_random(self) -> bool:
        return super().is_random or self.hidden > 0

    def metrics(self) -> Metrics:
        return {"loss": "min", "psnr": "max"}
