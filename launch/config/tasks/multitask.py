"""Options of several tasks of texts over one shared encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field

from launch.config.data import Data
from launch.config.errors import Problem
from launch.config.sections import Section
from launch.config.tasks.base import Metrics, TaskSection
from launch.config.tasks.ner import Ner
from launch.config.tasks.text_classification import TextClassification
from launch.config.tasks.text_regression import TextRegression

PartOptions = Annotated[TextClassification | TextRegression | Ner, Field(discriminator="kind")]


class Part(Section):
    """One of the tasks, and its data."""

    task: PartOptions = Field(
        description="What it learns, with the keys of that task. Its head is a linear layer: on the vector that `pooling` names (null: mean), "
        "or on each word's first token."
    )
    data: Data | None = Field(None, description="Its samples. null: those of the experiment's data section.")


class Multitask(TaskSection):
    """Several tasks in one model: an encoder that all of them train, and a head for each; every optimizer step is of one task."""

    READS = "texts"
    ROWS_ARE_SAMPLES = False

    kind: Literal["multitask"] = Field(description="Which task this is; chooses the other keys.")
    tasks: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Part], Field(min_length=2)] = Field(
        description="The tasks by name; a name stands before its metrics (NAME_accuracy)."
    )
    temperature: float = Field(
        1.0, ge=1, description="How samples are drawn: in shares of n^(1/T) for n samples. 1: by size; higher: nearer to equal shares."
    )

    def metrics(self) -> Metrics:
        """Returns every task's own metrics under its name, and `score`, the mean of the first of each."""
        own: Metrics = {f"{name}_{metric}": better for name, part in self.tasks.items() for metric, better in (part.task.metrics() or {}).items()}
        return {"score": "max", **own, "loss": "min"}

    def problems(self, data: Data) -> list[Problem]:
        """All tasks have the same splits, and share an encoder that packs no texts."""
        problems = []
        splits = {name: (part.data or data).split_names() for name, part in self.tasks.items()}
        for name, part in self.tasks.items():
            if getattr(part.task, "packing", False):
                what = "has no meaning for a task that shares its encoder"
                problems.append(Problem(what, key=f"task.tasks.{name}.task.packing", fix="delete it"))
            for split in ("validation", "test"):
                other = next((other for other, names in splits.items() if split in names), None)
                if other is not None and split not in splits[name]:
                    what, fix = f"{name} has no {split} split, and {other} has one", "name or cut one for each task, or for none"
                    problems.append(Problem(what, key=f"task.tasks.{name}.data" if part.data else "data.splits", fix=fix))
        return problems

    def usage(self) -> Sequence[str]:
        first = next(iter(self.tasks))
        return (
            "from trainers.models.multihead import load_multihead",
            'predict = load_multihead("{model}")',
            f'print(predict("{first}", "a film that is warm, funny and true"))  # or {", ".join(list(self.tasks)[1:])}',
        )

    def sources(self) -> dict[str, str]:
        return {f"task.tasks.{name}.data.source": part.data.source for name, part in self.tasks.items() if part.data is not None}

    def with_sources(self, places: Mapping[str, str]) -> Self:
        def moved(name: str, part: Part) -> Part:
            place = places.get(f"task.tasks.{name}.data.source")
            return part if place is None or part.data is None else part.model_copy(update={"data": part.data.model_copy(update={"source": place})})

        return self.model_copy(update={"tasks": {name: moved(name, part) for name, part in self.tasks.items()}})
