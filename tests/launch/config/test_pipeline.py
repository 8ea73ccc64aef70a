"""Pipeline files: stages in order, each with its overrides, and what is wrong with them by its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.load import load_experiment, shipped_configs
from launch.config.pipeline import find_pipeline, load_pipeline
from launch.config.resolve import resolve

FILE = """\
name: two
stages:
  first:
    experiment: ./tiny.yaml
    overrides: {train.duration: 1 epoch, model.freeze: [a, b], data.limit: null}
  second:
    experiment: ./tiny.yaml
    overrides:
      model.source: stages.first
"""


@pytest.fixture
def pipeline_file(experiment_file: Path) -> Path:
    path = experiment_file.with_name("two.yaml")
    path.write_text(FILE, encoding="utf-8")
    return path


def test_stages_come_in_order_with_the_files_values_before_the_typed_ones(pipeline_file: Path) -> None:
    pipeline = load_pipeline(pipeline_file, ["seed=3", "second.optimizer.lr=3e-5"])
    first, second = pipeline.stages
    assert (first.number, first.name, first.experiment) == (1, "first", str(pipeline_file.with_name("tiny.yaml")))
    assert first.overrides == ("train.duration=1 epoch", 'model.freeze=["a", "b"]', "data.limit=null", "seed=3")
    assert (second.overrides, second.begins_with) == (("seed=3", "optimizer.lr=3e-5"), {"model.source": "first"})


def test_a_stage_begins_with_the_run_of_an_earlier_one_and_is_checked_with_where_that_began(pipeline_file: Path) -> None:
    pipeline = load_pipeline(pipeline_file, ["first.model.source=owner/other"])
    second = pipeline.stages[1]
    base = Path("/runs/two/id")
    assert pipeline.stage_dir(base, second) == Path("/runs/two/id.2-second")
    assert pipeline.started(base, second)[-1] == "model.source=/runs/two/id.1-first"
    assert pipeline.checked(second)[-1] == "model.source=owner/other"


def test_a_typed_source_takes_the_place_of_the_stages(pipeline_file: Path) -> None:
    second = load_pipeline(pipeline_file, ["second.model.source=owner/other"]).stages[1]
    assert (second.overrides, second.begins_with) == (("model.source=owner/other",), {})


def test_a_stage_is_typed_as_it_stands_in_a_file(pipeline_file: Path) -> None:
    pipeline_file.write_text(FILE.replace("stages.first", "owner/other"), encoding="utf-8")
    second = load_pipeline(pipeline_file, ["second.model.source=stages.first"]).stages[1]
    assert (second.overrides[0], second.begins_with) == ("model.source=owner/other", {"model.source": "first"})


@pytest.mark.parametrize("other", ["frist", "second"])
def test_a_typed_stage_that_does_not_come_before_is_refused_where_it_was_typed(other: str, pipeline_file: Path) -> None:
    with pytest.raises(ConfigError, match=f"'second.model.source=stages.{other}': stages.{other} is no stage before this one"):
        load_pipeline(pipeline_file, [f"second.model.source=stages.{other}"])


def test_every_value_knows_the_line_or_the_words_that_it_stands_in(pipeline_file: Path) -> None:
    second = load_pipeline(pipeline_file, ["seed=3", "second.optimizer.lr=3e-5"]).stages[1]
    loaded = load_experiment(second.experiment, ("model.freeze=[a, b]", *second.overrides), second.origins)
    assert str(loaded.origins["optimizer.lr"]) == "override: second.optimizer.lr=3e-5"
    assert str(loaded.origins["seed"]) == "override: seed=3"
    first = load_pipeline(pipeline_file).stages[0]
    assert str(load_experiment(first.experiment, first.overrides, first.origins).origins["train.duration"]) == f"pipeline: {pipeline_file}:5"


def test_a_word_for_no_stage_is_told_of_the_stages(pipeline_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"'secnd.seed=3': 'secnd' is neither a stage nor a key of experiments; did you mean 'second'\?"):
        load_pipeline(pipeline_file, ["secnd.seed=3"])


def test_a_stage_is_checked_whatever_is_wrong_with_the_one_before(pipeline_file: Path) -> None:
    pipeline = load_pipeline(pipeline_file, ["first.optimizer.lr=fast", "first.model.source=owner/other"])
    assert pipeline.checked(pipeline.stages[1])[-1] == "model.source=owner/other"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("stages.first", "stages.frist", r"two.yaml:9: model.source: stages.frist is no stage before this one; did you mean 'first'\?"),
        ("stages.first", "stages.second", r"two.yaml:9: model.source: stages.second is no stage before this one"),
        (
            "model.source: stages.first",
            "model: {source: stages.first}",
            r"two.yaml:9: stages.first stands inside a block\n.*'model.source: stages.first'",
        ),
        ("  first:", "  train:", r"two.yaml:3: stages.train: 'train' is a key of experiments too"),
        ("experiment:", "experimnt:", r"two.yaml:4: stages.first.experimnt: unknown key; did you mean 'experiment'\?"),
        ("name: two", "name: /two", r"two.yaml:1: name: '/two' is not possible"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(old: str, new: str, said: str, pipeline_file: Path) -> None:
    pipeline_file.write_text(FILE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_pipeline(pipeline_file)


def test_a_pipeline_is_told_by_its_stages_and_is_no_experiment(pipeline_file: Path, experiment_file: Path) -> None:
    assert find_pipeline(str(pipeline_file)) == pipeline_file
    assert find_pipeline(str(experiment_file)) is None
    assert find_pipeline("mlm_then_sst2") == shipped_configs() / "pipelines" / "mlm_then_sst2.yaml"
    with pytest.raises(ConfigError, match=r"two.yaml: is a pipeline of several experiments"):
        load_experiment(str(pipeline_file))


@pytest.mark.parametrize("path", sorted((shipped_configs() / "pipelines").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_pipeline_is_named_as_its_file_and_each_of_its_stages_resolves(path: Path) -> None:
    pipeline = load_pipeline(path)
    assert pipeline.name == path.stem
    for stage in pipeline.stages:
        resolve(load_experiment(stage.experiment, pipeline.checked(stage)))


def test_a_student_s_teacher_and_weights_are_those_of_an_earlier_stage() -> None:
    pipeline = load_pipeline(shipped_configs() / "pipelines" / "teacher_then_student.yaml")
    base, (teacher, student) = Path("/runs/x"), pipeline.stages
    assert student.begins_with == {"model.source": "teacher", "task.teacher": "teacher"}
    run = pipeline.stage_dir(base, teacher)
    assert pipeline.started(base, student)[-2:] == (f"model.source={run}", f"task.teacher={run}")
