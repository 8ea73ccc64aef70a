"""Options of the GLUE benchmark: nine tasks, each with its own columns, classes and metrics (Wang et al., 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from launch.config.tasks.base import Metrics
from launch.config.tasks.texts import TextsSection

GlueName = Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]


@dataclass(frozen=True)
class GlueTask:
    """One task of the nine.

    Args:
        hub: columns of the text or the pair in the hub's data set; the target's is `label`.
        tsv: those of the benchmark's own files, and last the target's. CoLA's files have no header: data.columns=[source, label, star, sentence].
        label_names: in the order of the hub's class numbers; none: the target is a number.
        metrics: those that the benchmark reports.
    """

    hub: tuple[str, ...]
    tsv: tuple[str, ...]
    label_names: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)


_ENTAILED = ("entailment", "not_entailment")
GLUE: dict[GlueName, GlueTask] = {
    "cola": GlueTask(("sentence",), ("sentence", "label"), ("unacceptable", "acceptable"), ("matthews",)),
    "sst2": GlueTask(("sentence",), ("sentence", "label"), ("negative", "positive")),
    "mrpc": GlueTask(("sentence1", "sentence2"), ("#1 String", "#2 String", "Quality"), ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "qqp": GlueTask(("question1", "question2"), ("question1", "question2", "is_duplicate"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "stsb": GlueTask(("sentence1", "sentence2"), ("sentence1", "sentence2", "score"), (), ("pearson", "spearman")),
    "mnli": GlueTask(("premise", "hypothesis"), ("sentence1", "sentence2", "gold_label"), ("entailment", "neutral", "contradiction")),
    "qnli": GlueTask(("question", "sentence"), ("question", "sentence", "label"), _ENTAILED),
    "rte": GlueTask(("sentence1", "sentence2"), ("sentence1", "sentence2", "label"), _ENTAILED),
    "wnli": GlueTask(("sentence1", "sentence2"), ("sentence1", "sentence2", "label"), ("not_entailment", "entailment")),
}
"""Source: the data set card of nyu-mll/glue, the headers of the benchmark's files, and table 1 of the paper."""


def _leave_columns_out(schema: dict[str, Any]) -> None:
    """A file need not say the columns: `name` and `layout` do."""
    schema["required"] = [key for key in schema["required"] if key not in ("text", "label")]


class Glue(TextsSection):
    """One of the nine tasks of GLUE."""

    model_config = ConfigDict(json_schema_extra=_leave_columns_out)
    SMOOTHS_LABELS = False
    USAGE = (
        "from transformers import pipeline",
        'classify = pipeline("text-classification", model="{model}")',
        'print(classify({{"text": "a film that is warm", "text_pair": "a second text, where the task has one"}}))',
    )

    kind: Literal["glue"] = Field(description="Which task this is; chooses the other keys.")
    name: GlueName = Field(description="Which of the nine; chooses columns, classes and metrics.")
    layout: Literal["hub", "tsv"] = Field(
        "hub", description="How the columns are called. hub: as in nyu-mll/glue; tsv: as in the benchmark's own files (train.tsv, dev.tsv)."
    )
    text: str | list[str] = Field(description="Column of the text, or a list of the two of a pair. null: the task's, by `layout`.")
    label: str = Field(description="Column of the class or the number. null: the task's, by `layout`.")

    @model_validator(mode="before")
    @classmethod
    def _with_columns(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        task = dict[Any, GlueTask](GLUE).get(values.get("name")) if isinstance(values.get("name"), str) else None
        own = {key: value for key, value in values.items() if key not in ("text", "label") or value is not None}
        if task is None:
            return {"text": "?", "label": "?"} | own  # the name alone is what is wrong
        *texts, label = task.tsv if values.get("layout") == "tsv" else (*task.hub, "label")
        return {"text": texts[0] if len(texts) == 1 else texts, "label": label} | own

    @property
    def task(self) -> GlueTask:
        return GLUE[self.name]

    def metrics(self) -> Metrics:
        return {"score": "max", **dict.fromkeys(self.task.metrics, "max"), "loss": "min"}
