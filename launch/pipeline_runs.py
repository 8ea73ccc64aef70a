"""Pipelines that were started: what is written down about them, and how far each stage is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from launch.config.errors import ConfigError, Problem, StateError
from launch.config.load import find_shipped
from launch.config.pipeline import Pipeline, Stage, load_pipeline
from launch.config.pipeline_dir import pipeline_file, pipeline_record
from launch.config.run_dir import RunDir, read_json, write_atomic, write_json
from launch.runs import read_run

Standing = Literal["done", "begun", "new"]


@dataclass(frozen=True)
class How:
    """How every stage is launched: what the command line says beside the experiment."""

    strategy: str = "auto"
    nodes: int | None = None
    processes_per_node: int | None = None
    launcher: str = "direct"


@dataclass(frozen=True)
class Started:
    """A pipeline that was started.

    Args:
        base: what the run directories of its stages begin with.
        named: its file, as it was named then.
        experiments: stage -> sha256 of the experiment's file as it was then.
    """

    pipeline: Pipeline
    how: How
    base: Path
    named: str
    experiments: dict[str, str]

    def run_of(self, stage: Stage) -> RunDir:
        return RunDir(self.pipeline.stage_dir(self.base, stage))

    def standing(self, stage: Stage) -> Standing:
        """Returns how far a stage is. One whose directory is gone is done where all that begins with its model is.

        Raises:
            StateError: its directory is gone, and a stage that begins with its model is not done.
        """
        run = self.run_of(stage)
        if run.resolved.is_file():
            return "done" if run.status.is_file() and read_run(run).state == "completed" else "begun"
        heirs = [other for other in self.pipeline.stages if stage.name in other.begins_with.values() and self.run_of(other).resolved.is_file()]
        waiting = [other for other in heirs if self.standing(other) != "done"]
        if waiting:
            what = f"the run of stage {stage.name} is gone, and stage {waiting[0].name} has begun with its model"
            raise StateError(Problem(what, where=str(run.path), fix=f"bring it back; or fullrank run {self.named} for a new one"))
        return "done" if heirs else "new"

    def check_experiment(self, stage: Stage) -> None:
        """Refuses a stage whose experiment file is another one than when the pipeline was started.

        Raises:
            StateError: names the file.
        """
        path = find_shipped(stage.experiment, "experiments")
        if self.experiments.get(stage.name, _sha256(path)) != _sha256(path):
            what = f"the experiment of stage {stage.name} has changed since the pipeline was started"
            fix = f"put it back; or fullrank resume {self.base} --force, to train what it says now"
            raise StateError(Problem(what, where=str(path), fix=fix))


def write_start(pipeline: Pipeline, base: Path, words: Sequence[str], how: How) -> Started:
    """Writes down, beside the run directories to come, the pipeline and how it was started.

    Raises:
        ConfigError: another one was started there.
    """
    path = pipeline.path
    base.parent.mkdir(parents=True, exist_ok=True)
    if pipeline_file(base).exists():
        raise ConfigError(Problem("a pipeline has been started here", str(pipeline_file(base)), "--run-dir", fix=f"fullrank resume {base}"))
    started = Started(
        pipeline, how, base, str(path.absolute()), {stage.name: _sha256(find_shipped(stage.experiment, "experiments")) for stage in pipeline.stages}
    )
    record = {"file": started.named, "folder": str(path.parent.absolute()), "words": list(words), "how": asdict(how)}
    write_json(pipeline_record(base), record | {"experiments": started.experiments})
    write_atomic(pipeline_file(base), path.read_text(encoding="utf-8"))
    return started


def read_start(base: Path, words: Sequence[str]) -> Started:
    """Returns a pipeline that was started.

    Args:
        words: STAGE.KEY=VALUE or KEY=VALUE, typed now; for stages that are not done.

    Raises:
        StateError: nothing says how, all stages are done, or one that is done is to be changed.
    """
    record: dict[str, Any] = read_json(pipeline_record(base)) or {}
    try:
        how, experiments = How(**record["how"]), {str(name): str(sha) for name, sha in record.get("experiments", {}).items()}
        named, folder, first = str(record.get("file", "PIPELINE")), Path(record["folder"]), [str(word) for word in record["words"]]
    except (KeyError, TypeError, AttributeError) as error:
        what = "does not say how the pipeline was started: it is missing or damaged"
        fix = f"bring it back; or fullrank run {pipeline_file(base)} --run-root ... for a new one"
        raise StateError(Problem(what, where=str(pipeline_record(base)), fix=fix)) from error
    started = Started(load_pipeline(pipeline_file(base), [*first, *words], folder), how, base, named, experiments)
    done = [stage.name for stage in started.pipeline.stages if started.standing(stage) == "done"]
    if len(done) == len(started.pipeline.stages):
        raise StateError(Problem("every stage of the pipeline is completed; there is nothing to go on with", str(base), fix=f"fullrank run {named}"))
    for word in words:
        name = word.partition(".")[0]
        if name in done and "=" not in name:
            left = ", ".join(stage.name for stage in started.pipeline.stages if stage.name not in done)
            raise StateError(Problem(f"stage {name} is done: nothing of it can be changed", repr(word), allowed=f"a key of: {left}"))
    return started


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
