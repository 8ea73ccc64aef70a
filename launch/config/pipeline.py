"""Reads pipeline files: several trainings one after another, where one may begin with the model of an earlier one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from launch.config.errors import ConfigError, Problem, suggest
from launch.config.experiment import MOST_NAME_CHARACTERS, NAME_PATTERN, Experiment
from launch.config.load import Origin, find_shipped, flatten, load_file, raw_value
from launch.config.sections import Section
from launch.config.yaml_files import load_yaml

FROM_STAGE = "stages."
"""`model.source: stages.NAME` is the model that the stage NAME leaves."""
MODEL_KEYS = ("model.source", "model.weights", "task.teacher")


class StageSection(Section):
    """One training of a pipeline."""

    experiment: str = Field(min_length=1, description="A shipped experiment, or the path of an experiment file, from the pipeline's folder.")
    overrides: dict[str, Any] = Field(
        {}, description="Values that replace the experiment's, by dotted key; model.source and task.teacher may be stages.NAME."
    )


class PipelineSection(Section):
    """Several trainings, one after another."""

    name: str = Field(pattern=NAME_PATTERN, max_length=MOST_NAME_CHARACTERS, description="Name of the pipeline; a folder under the run root.")
    stages: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], StageSection] = Field(
        min_length=1, description="The trainings by name, in their order."
    )


@dataclass(frozen=True)
class Stage:
    """One training of a pipeline.

    Args:
        overrides: KEY=VALUE: the pipeline file's, then those of the command line.
        origins: where each of them stands: a line of the file, or what was typed, with the stage's name.
        begins_with: key of the model -> the earlier stage whose model it is.
    """

    number: int
    name: str
    experiment: str
    overrides: tuple[str, ...]
    origins: Mapping[str, Origin]
    begins_with: Mapping[str, str]


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's stages, in their order."""

    name: str
    path: Path
    stages: tuple[Stage, ...]

    def stage_dir(self, base: Path, stage: Stage) -> Path:
        """Returns the run directory of a stage: beside `base`, <base>.1-mlm, so that every stage is a run like any other."""
        return base.with_name(f"{base.name}.{stage.number}-{stage.name}")

    def started(self, base: Path, stage: Stage) -> tuple[str, ...]:
        """Returns the overrides that the stage is started with, once the stages before it are done."""
        dirs = {other.name: self.stage_dir(base, other) for other in self.stages}
        return (*stage.overrides, *(f"{key}={dirs[name]}" for key, name in stage.begins_with.items()))

    def checked(self, stage: Stage) -> tuple[str, ...]:
        """Returns overrides to plan a stage with before those it needs are done: their models stand where they themselves began."""
        return (*stage.overrides, *(f"{key}={self._origin(key, name)}" for key, name in stage.begins_with.items()))

    def origins(self, stage: Stage, words: Sequence[str]) -> dict[str, Origin]:
        """Returns where the overrides of `started` or `checked` stand: a stage's model at that stage."""
        named = {word: stage.begins_with.get(word.partition("=")[0]) for word in words if word not in stage.overrides}
        return {**stage.origins, **{word: Origin("pipeline", f"{FROM_STAGE}{name}") for word, name in named.items() if name}}

    def _origin(self, key: str, name: str) -> str:
        earlier = next(stage for stage in self.stages if stage.name == name)
        if key == "model.weights":
            return "null"
        if key in earlier.begins_with:
            return self._origin(key, earlier.begins_with[key])
        source = raw_value(earlier.experiment, self.checked(earlier), "model.source")
        return "null" if source is None else str(source)


def find_pipeline(name_or_path: str | None) -> Path | None:
    """Returns the file that a name or path means if it is a pipeline, told by its key `stages`; None for anything else.

    Raises:
        ConfigError: no such file, or one that cannot be read.
    """
    if name_or_path is None or name_or_path.endswith(".py"):
        return None
    path = find_shipped(name_or_path, "experiments")
    return path if "stages" in load_yaml(path).values else None


def load_pipeline(path: Path, words: Sequence[str] = (), folder: Path | None = None) -> Pipeline:
    """Returns the pipeline behind a file.

    Args:
        words: STAGE.KEY=VALUE for one stage, KEY=VALUE for all of them.
        folder: where the paths of experiments begin; None: the file's own.

    Raises:
        ConfigError: with every problem of the file and of the words at once.
    """
    section, document = load_file(path, PipelineSection)
    names, keys, problems = list(section.stages), set(Experiment.model_fields), list[Problem]()
    typed = typed_for(names, words)
    stages = []
    for number, (name, stage) in enumerate(section.stages.items(), start=1):
        place = document.where(("stages", name))
        if name in keys:
            problems.append(Problem(f"{name!r} is a key of experiments too", place, f"stages.{name}", allowed="another name"))
        values = dict(stage.overrides)
        in_file = {key: str(values[key]) for key in MODEL_KEYS if str(values.get(key)).startswith(FROM_STAGE)}
        typed_values = {key: value for key, _, value in (word.partition("=") for word in typed[name])}
        in_words = {key: typed_values[key] for key in MODEL_KEYS if typed_values.get(key, "").startswith(FROM_STAGE)}
        references = {key: text for key, text in in_file.items() if key not in typed_values} | in_words
        problems += [
            Problem(f"{text} stands inside a block", document.where(("stages", name, "overrides", key.split(".")[0])), fix=f"a line '{key}: {text}'")
            for key, text in flatten({key: value for key, value in values.items() if isinstance(value, dict)}).items()
            if key in MODEL_KEYS and str(text).startswith(FROM_STAGE)
        ]
        begins_with = {key: text.removeprefix(FROM_STAGE) for key, text in references.items()}
        for key, other in begins_with.items():
            if other not in names[: number - 1]:
                near = suggest(other, names[: number - 1])
                what = f"{FROM_STAGE}{other} is no stage before this one" + (f"; did you mean {near!r}?" if near else "")
                typed_word = f"{name}.{key}={FROM_STAGE}{other}" if key in in_words else ""
                where = repr(typed_word) if typed_word else document.where(("stages", name, "overrides", key))
                problems.append(Problem(what, where, None if typed_word else key, allowed=", ".join(names[: number - 1]) or "none"))
        of_file = {f"{key}={_as_word(value)}": ("stages", name, "overrides", key) for key, value in values.items() if key not in in_file}
        words_typed = [word for word in typed[name] if word.partition("=")[0] not in in_words]
        origins = {word: Origin("pipeline", document.where(place)) for word, place in of_file.items()}
        origins |= {word: Origin("override", f"{name}.{word}") for word in words_typed if f"{name}.{word}" in words}
        experiment = _experiment(stage.experiment, folder or path.parent)
        stages.append(Stage(number, name, experiment, (*of_file, *words_typed), origins, begins_with))
    problems += [problem for word in words for problem in _unknown_stage(word, names)]
    if problems:
        raise ConfigError(*problems)
    return Pipeline(section.name, path, tuple(stages))


def _unknown_stage(word: str, names: Sequence[str]) -> list[Problem]:
    """Returns what is wrong with a word that begins with neither a stage nor a key of experiments."""
    first = word.partition("=")[0].partition(".")[0]
    if "." not in word.partition("=")[0] or first in names or first in Experiment.model_fields:
        return []
    near = suggest(first, [*names, *Experiment.model_fields])
    what = f"{first!r} is neither a stage nor a key of experiments" + (f"; did you mean {near!r}?" if near else "")
    return [Problem(what, repr(word), allowed=f"{', '.join(f'{name}.KEY=VALUE' for name in names)}, or KEY=VALUE for all")]


def typed_for(names: Sequence[str], words: Sequence[str]) -> dict[str, list[str]]:
    """Returns each stage's part of what was typed: STAGE.KEY=VALUE is for one, KEY=VALUE for all."""
    typed: dict[str, list[str]] = {name: [] for name in names}
    for word in words:
        first, _, rest = word.partition(".")
        if first in typed and "=" not in first:
            typed[first].append(rest)
        else:
            for some in typed.values():
                some.append(word)
    return typed


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _experiment(name: str, folder: Path) -> str:
    """Returns the name of a shipped experiment, or an absolute path."""
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    return str((folder / Path(name).expanduser()).absolute()) if is_path else name
