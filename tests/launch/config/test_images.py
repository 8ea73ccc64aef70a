"""The contract of pictures and of code of one's own: what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.load import load_experiment
from launch.config.resolve import resolve
from launch.config.sources import OwnClass, TorchvisionModel, parse_model, parse_source

EXPERIMENT = """\
name: pictures
model: {source: 'torchvision://resnet50?weights=DEFAULT'}
task:
  kind: image_classification
data: {source: ./pictures}
train: {duration: 1 epoch, global_batch_size: 8}
optimizer: {lr: 0.1}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "pictures.yaml"
    path.write_text(EXPERIMENT)
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(load_experiment(str(path), overrides))
    return str(error.value).replace(str(path.parent), "")


def test_an_unknown_task_gets_the_nearest(path):
    path.write_text(EXPERIMENT.replace("kind: image_classification", "kind: image_clasification"))
    text = refused(path)
    assert "/pictures.yaml:4: task.kind: 'image_clasification' is not possible; did you mean 'image_classification'?" in text


def test_a_task_without_a_kind_lists_them(path):
    path.write_text(EXPERIMENT.replace("kind: image_classification", "size: 3"))
    words = refused(path)
    assert "task.kind: the key is missing\n    allowed: 'text_classification', " in words
    assert "'image_classification'" in words


def test_an_unknown_key_of_a_task_gets_that_tasks_keys(path):
    text = refused(path, "task.flipp=0.5")
    assert "'task.flipp=0.5'" in text or "task.flipp" in text
    assert "unknown key; did you mean 'flip'?" in text
    assert "max_length" not in text


def test_a_number_out_of_bounds_says_them(path):
    assert "task.size" in (text := refused(path, "task.size=0"))
    assert "at least 1" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.source=null", "model.source=null: the key is missing"),
        ("model.class=my_models:Net", "is set beside model.class my_models:Net, and one model has one origin"),
        ("model.class=my_models", "'model.class=my_models': 'my_models' is not possible"),
        ("model.kwargs.width=3", "model.kwargs: only a model.class is built with them"),
        ("model.key_map=[a -> b]", "model.key_map=[a -> b]: renames what stands in model.weights, which is not set"),
        ("model.key_map=[a]", "has no arrow; a renaming is 'PATTERN -> REPLACEMENT'"),
        ("model.key_map=['(a -> b']", "is not a renaming: missing )"),
        (r"model.key_map=['a -> \2']", "is not a renaming: invalid group reference 2"),
        ("task.mean=[0.5]", "task.mean=[0.5]: 1 numbers, but the network sees 3 channels"),
        ("task.mean=[0.5, 0.5, 0.5]", "mean and std belong together"),
        ("task.resize=100", "task.resize=100: 100 pixels, and a square of 224 is cut out of them"),
        ("task.padding=4", "task.padding=4: has no meaning for task.crop center"),
        ("task.scale=[0.5, 0.1]", "task.scale=[0.5, 0.1]: 0.5 is above 0.1"),
        ("task.label=image", "task.label=image: 'image' is the column of the image too"),
    ],
)
def test_what_does_not_fit_together_is_refused(path, override, message):
    assert message in refused(path, override)


def test_weights_belong_to_a_class_or_a_torchvision_network(path):
    assert "brings its own weights" in refused(path, "model.source=owner/name", "model.weights=./x.pt")
    resolve(load_experiment(str(path), ["model.weights=./x.pt"]))


def test_a_class_and_its_arguments_load_back_from_what_was_dumped(path, tmp_path):
    import yaml

    from launch.config.experiment import dump_experiment

    first = resolve(load_experiment(str(path), ["model.source=null", "model.class=my_models:Net", "model.kwargs.width=3"]))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(dump_experiment(first)))
    assert resolve(load_experiment(str(again))) == first
    assert parse_model(first.model) == OwnClass("my_models", "Net")
    assert first.model.kwargs == {"width": 3}


def test_a_torchvision_address_is_whole_or_refused():
    assert parse_source("torchvision://resnet50?weights=IMAGENET1K_V2", "model.source") == TorchvisionModel("resnet50", "IMAGENET1K_V2")
    assert parse_source("torchvision://resnet50?weights=null", "model.source") == TorchvisionModel("resnet50", None)
    with pytest.raises(ConfigError, match="is not complete"):
        parse_source("torchvision://resnet50", "model.source")
    with pytest.raises(ConfigError, match="is a model"):
        parse_source("torchvision://resnet50?weights=null", "data.source")


def test_text_classification_refuses_a_class_of_ones_own(path):
    path.write_text(EXPERIMENT.replace("kind: image_classification", "{kind: text_classification, text: a, label: b}").replace("task:\n ", "task:"))
    assert "torchvision://resnet50?weights=DEFAULT is a network for pictures" in refused(path)
    assert "model.class=my_models:Net: has no meaning for text_classification" in refused(path, "model.source=null", "model.class=my_models:Net")


@pytest.mark.parametrize("override", ["model.kwargs={width: 3}", 'model.kwargs={"width": 3}', "model.kwargs.width=3"])
def test_a_mapping_can_be_given_whole_or_key_by_key(path, override):
    loaded = load_experiment(str(path), ["model.source=null", "model.class=my_models:Net", override])
    assert loaded.experiment.model.kwargs == {"width": 3}
    assert str(loaded.origins["model.kwargs.width"]) == f"override: {override}"


def test_what_is_no_mapping_is_told_how_one_is_written(path):
    text = refused(path, "model.source=null", "model.class=my_models:Net", "model.kwargs=3")
    assert "'model.kwargs=3': 3 stands where a block of keys is expected" in text
    assert "try: model.kwargs.NAME=VALUE, or 'model.kwargs={NAME: VALUE}'" in text
