"""A module or a class that is not there is found by reading files, before anything is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.checks.missing_code import find_missing_code
from launch.config.load import load_experiment

EXPERIMENT = """\
name: own
model: {{class: '{cls}'}}
task: {task}
data: {{source: ./pictures}}
train: {{duration: 1 epoch, global_batch_size: 8}}
optimizer: {{lr: 0.1}}
"""
BRANCHES = """\
try:
    from fast import Net
except ImportError:
    class Slow: ...
if True:
    Alias = Slow
with open("x") as file:
    def inside(): ...
(First, Second) = 1, 2
def outer():
    class Hidden: ...
"""


def missing(folder: Path, cls: str = "my_net:Net", task: str = "{kind: image_classification}") -> str:
    path = folder / "own.yaml"
    path.write_text(EXPERIMENT.format(cls=cls, task=task))
    return "\n".join(map(str, find_missing_code(load_experiment(str(path)).experiment, path)))


def test_a_module_that_is_nowhere_names_the_folder_and_what_is_in_it(tmp_path):
    (tmp_path / "my_other.py").write_text("")
    text = missing(tmp_path)
    assert f"model.class: there is no my_net.py in {tmp_path}" in text
    assert "allowed: a module of that folder (my_other), or an installed one" in text
    assert "task.file: there is no my_task.py" in missing(tmp_path, "torch.nn:Linear", "{kind: own, file: my_task.py}")


def test_an_installed_class_is_left_to_the_ranks(tmp_path):
    assert missing(tmp_path, "trainers.architectures.small_cnn:NoSuchClass") == ""


@pytest.mark.parametrize("name", ["Net", "Slow", "Alias", "inside", "First", "Second", "file"])
def test_every_way_to_bind_a_name_counts(tmp_path, name):
    (tmp_path / "my_net.py").write_text(BRANCHES)
    assert missing(tmp_path, f"my_net:{name}") == ""


def test_a_class_that_is_not_there_gets_the_nearest(tmp_path):
    (tmp_path / "my_net.py").write_text(BRANCHES)
    text = missing(tmp_path, "my_net:Slwo")
    assert f"{tmp_path}/my_net.py: model.class: my_net has no Slwo; did you mean 'Slow'?" in text
    assert "Hidden" not in text
    assert missing(tmp_path, "my_net:Hidden")


@pytest.mark.parametrize("line", ["from other import *\n", "def __getattr__(name): ...\n"])
def test_names_that_only_running_tells_are_not_judged(tmp_path, line):
    (tmp_path / "my_net.py").write_text(line)
    assert missing(tmp_path) == ""


def test_a_module_of_a_package_is_looked_at(tmp_path):
    (tmp_path / "my_pack").mkdir()
    (tmp_path / "my_pack/__init__.py").write_text("")
    (tmp_path / "my_pack/inner.py").write_text("class Net: ...\n")
    assert missing(tmp_path, "my_pack.inner:Net") == ""
    assert "my_pack has no Net" in missing(tmp_path, "my_pack:Net")
    assert "there is no module my_pack.outer" in missing(tmp_path, "my_pack.outer:Net")


def test_a_task_file_needs_its_two_names(tmp_path):
    (tmp_path / "my_task.py").write_text("class Option: ...\n")
    text = missing(tmp_path, "torch.nn:Linear", "{kind: own, file: my_task.py}")
    assert "task.file: my_task has no Options; did you mean 'Option'?" in text
    assert "task.file: my_task has no build_task" in text


def test_what_is_no_python_names_its_line(tmp_path):
    (tmp_path / "my_net.py").write_text("import torch\nclass Net(:\n")
    assert f"{tmp_path}/my_net.py:2: model.class: is no Python: invalid syntax" in missing(tmp_path)
