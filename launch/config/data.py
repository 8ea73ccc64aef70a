"""What is trained on: where the samples are, and which of them are used for what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from launch.config.sections import Section

DataFormat = Literal[
    "auto", "hub", "csv", "tsv", "jsonl", "parquet", "text", "conll", "squad", "image_folder", "idx", "cifar", "coco", "audio_folder"
]


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise ValueError(f"there is no encoding {name!r}; there are utf-8, latin-1, cp1252, utf-16, ...") from error
    return name


class Splits(Section):
    """Which part of the source is used for what: a split name, or a file inside the source."""

    train: str = Field("train", description="Split, or file inside the source, that is trained on.")
    validation: str | None = Field("validation", description="Split that is evaluated during training. null: none.")
    test: str | None = Field(None, description="Split that is evaluated once, at the end. null: none.")


class Data(Section):
    """The samples."""

    source: str = Field(
        min_length=1,
        description="Where the data is: a hub name (NAME or NAME:CONFIGURATION), a path, or pypi://NAME==VERSION/path#sha256=...",
    )
    format: DataFormat = Field("auto", description="How the files are read. auto: by the file's ending; a folder or name without files: hub.")
    splits: Splits = Field(default_factory=Splits, description="Which part of the source is used for what.")
    columns: list[str] | None = Field(None, min_length=1, description="Column names of files without a header. null: the first line has them.")
    encoding: Annotated[str, AfterValidator(_known_encoding)] = Field("utf-8", description="Character encoding of text files.")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share cut at random (by seed) from the train split when there is no validation split."
    )
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share cut at random (by seed) from the train split when there is no test split."
    )
    train_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of the train split that is trained on, drawn at random (by seed) after the other splits were cut. null: all."
    )
    limit: Annotated[int, Field(gt=0)] | None = Field(None, description="Use only the first N samples of each split. null: all.")
    on_bad_row: Literal["stop", "skip"] = Field(
        "stop", description="stop: end before training at a row that cannot be used. skip: leave it out, count and list it."
    )
    num_workers: int = Field(2, ge=0, description="Processes a rank that prepare batches ahead. 0: in the training process.")

    def split_names(self) -> list[str]:
        """Returns the splits that there will be, named or cut from train."""
        cut = {"validation": self.validation_fraction, "test": self.test_fraction}
        return ["train", *(name for name, share in cut.items() if getattr(self.splits, name) is not None or share is not None)]
