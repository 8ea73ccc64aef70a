"""Options of every task that looks at whole pictures: where they are, and their way into the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.base import Share, TaskSection


class Pictures(TaskSection):
    """Pictures with a label each, scaled, cut and changed; what is learned of them is the subclass's."""

    READS = "pictures"

    image: str = Field("image", description="Column of the pictures, in parquet files and data sets of the hub.")
    label: str = Field("label", description="Column of the label, in parquet files and data sets of the hub.")
    label_names: list[str] | None = Field(
        None,
        min_length=2,
        description="Names of the classes, in the order of their numbers. null: from the data set, or the sorted values of the train split.",
    )
    channels: Literal[1, 3] = Field(3, description="What the network sees: 3 for RGB, 1 for grey. Other pictures are converted, and counted.")
    size: int = Field(224, ge=1, le=4096, description="Edge of the square that the network sees, in pixels.")
    resize: Annotated[int, Field(ge=1, le=8192)] | None = Field(
        None, description="Shorter edge that a picture is scaled to before the square is cut out, in pixels. null: both edges become `size`."
    )
    crop: Literal["center", "random", "resized"] = Field(
        "center",
        description="The square that training sees. center: the middle, as evaluation does; random: anywhere; "
        "resized: a random part of the picture, scaled to `size` (`resize` is then for evaluation alone).",
    )
    padding: int = Field(0, ge=0, le=1024, description="Black pixels around the picture before a random crop.")
    scale: tuple[Share, Share] = Field((0.08, 1.0), strict=False, description="Smallest and largest share of the picture in a resized crop.")
    flip: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="Probability that training mirrors a picture, left to right.")
    augment: Literal["trivial", "rand", "auto"] | None = Field(
        None, description="A published recipe of random changes: trivial (TrivialAugment), rand (RandAugment), auto (AutoAugment). null: none."
    )
    mean: list[float] | None = Field(None, description="Mean of each channel, of pixels from 0 to 1. null: the weights' own; without weights 0.5.")
    std: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="Standard deviation of each channel, of pixels from 0 to 1. null: the weights' own; without weights 0.5."
    )

    def columns(self) -> dict[str, list[str]]:
        return {"task.image": [self.image], "task.label": [self.label]}

    @property
    def is_random(self) -> bool:
        """Whether training sees another picture each time it looks at one."""
        return self.crop != "center" or self.flip > 0 or self.augment is not None
