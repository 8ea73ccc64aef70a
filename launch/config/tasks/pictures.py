"""Options of the tasks that look at pictures: where they are, and their way into the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.base import Share, TaskSection


class SquareViews(TaskSection):
    """A picture becomes a square, the same for all: scaled, cut and mirrored."""

    READS = "pictures"

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
    mean: list[float] | None = Field(None, description="Mean of each channel, of pixels from 0 to 1. null: the weights' own; without weights 0.5.")
    std: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="Standard deviation of each channel, of pixels from 0 to 1. null: the weights' own; without weights 0.5."
    )

    @property
    def is_random(self) -> bool:
        """Whether training sees another picture each time it looks at one."""
        return self.crop != "center" or self.flip > 0


class Pictures(SquareViews):
    """Pictures with a label each; what is learned of them is the subclass's."""

    image: str = Field("image", description="Column of the pictures, in parquet files and data sets of the hub.")
    label: str = Field("label", description="Column of the label, in parquet files and data sets of the hub.")
    label_names: list[str] | None = Field(
        None,
        min_length=2,
        description="Names of the classes, in the order of their numbers. null: from the data set, or the sorted values of the train split.",
    )
    augment: Literal["trivial", "rand", "auto"] | None = Field(
        None, description="A published recipe of random changes: trivial (TrivialAugment), rand (RandAugment), auto (AutoAugment). null: none."
    )

    def columns(self) -> dict[str, list[str]]:
        return {"task.image": [self.image], "task.label": [self.label]}

    @property
    def is_random(self) -> bool:
        return super().is_random or self.augment is not None


class AnnotatedPictures(TaskSection):
    """Pictures whose objects stand in a file of COCO's format, one a split (cocodataset.org/#format-data)."""

    READS = "pictures"

    pictures: str = Field(
        ".", description="Folder of the pictures, from data.source on; they may lie in folders below it. One beside its annotation file comes first."
    )
    label_names: list[str] | None = Field(
        None,
        min_length=1,
        description="Categories that are learned, in the order of their numbers. null: those of the train split's file, in the order of their ids.",
    )
