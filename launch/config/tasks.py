"""Each task's own options, in one table."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from launch.config.sections import Section

Share = Annotated[float, Field(gt=0, le=1)]
Metrics = dict[str, Literal["min", "max"]]


class TextClassification(Section):
    """One label for a text, or for a pair of texts."""

    kind: Literal["text_classification"] = Field(description="Which task this is; chooses the other keys.")
    text: str | Annotated[list[str], Field(min_length=1, max_length=2)] = Field(
        description="Column of the text, or a list of two columns for a pair (premise and hypothesis)."
    )
    label: str = Field(description="Column of the label: a class name, a class number, or a rating (see label_threshold).")
    max_length: int = Field(128, ge=2, description="Longest input in tokens; longer texts are cut at the end.")
    label_names: list[str] | None = Field(
        None,
        min_length=2,
        description="Names of the classes, in the order of their numbers. null: from the data set, or the sorted values of the train split.",
    )
    label_threshold: float | None = Field(
        None,
        description="For numeric ratings: above it is class 1 (positive), below it class 0 (negative), equal is left out and counted. "
        "null: labels are classes.",
    )


class ImageClassification(Section):
    """One label for a picture."""

    kind: Literal["image_classification"] = Field(description="Which task this is; chooses the other keys.")
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


class OwnTask(Section):
    """A task of your own: a Python file beside the experiment."""

    kind: Literal["own"] = Field(description="Which task this is; chooses the other keys.")
    file: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*\.py$",
        description="Python file in the experiment's folder with `Options` (a pydantic model) and `build_task(experiment)`.",
    )
    options: dict[str, Any] = Field({}, description="What the file's Options are made of; build_task finds them as experiment.task.")


TASK_OPTIONS = {"text_classification": TextClassification, "image_classification": ImageClassification, "own": OwnTask}
TaskOptions = Annotated[TextClassification | ImageClassification | OwnTask, Field(discriminator="kind")]

_CLASSIFICATION: Metrics = {"accuracy": "max", "f1": "max", "matthews": "max", "loss": "min"}
TASK_METRICS: dict[str, Metrics | None] = {
    "text_classification": _CLASSIFICATION,
    "image_classification": _CLASSIFICATION,
    "own": None,
}
"""The metrics each task can be judged by, and which direction is better. None: only the task's own file knows."""

TASK_USAGE: dict[str, list[str]] = {
    "text_classification": [
        "from transformers import pipeline",
        'classify = pipeline("text-classification", model="{model}")',
        'print(classify("a film that is warm, funny and true"))',
    ],
    "image_classification": [
        "from trainers.images.classifier import load_classifier",
        'classify = load_classifier("{model}")',
        'print(classify("picture.jpg"))',
    ],
    "own": [
        "from safetensors.torch import load_file",
        'weights = load_file("{model}/model.safetensors")',
        "print(*weights)",
    ],
}
"""Three lines of Python that use each task's trained model."""
