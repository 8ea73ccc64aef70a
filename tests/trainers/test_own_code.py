"""Classes and tasks of one's own: found beside the experiment, refused in one message."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.load import load_experiment
from launch.config.own_code import find_code
from launch.config.sources import OwnClass
from trainers import own_code
from trainers.own_code import build_own_model, build_own_task, own_usage, use_own_code
from trainers.own_code_check import find_problems

EXPERIMENT = """\
name: own
model: {{class: 'h2_net:Net', kwargs: {kwargs}}}
task: {task}
data: {{source: ./pictures}}
train: {{duration: 1 epoch, global_batch_size: 8}}
optimizer: {{lr: 0.1}}
"""
NET = "from torch import nn\nclass {name}(nn.Linear):\n    def __init__(self, width):\n        super().__init__(4, width)\n"


@pytest.fixture(autouse=True)
def _clean_path(monkeypatch):
    """What a test puts on the path or imports is gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(own_code, "_FOLDERS", [])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("h2_"):
            del sys.modules[name]


def write(
    folder: Path, cls: str = "h2_net:Net", kwargs: str = "{width: 3}", task: str = "{kind: image_classification}", metric: str = "loss"
) -> Path:
    path = folder / "own.yaml"
    path.write_text(EXPERIMENT.format(cls=cls, kwargs=kwargs, task=task, metric=metric))
    return path


def refused(path: Path) -> str:
    problems = find_problems(load_experiment(str(path)).experiment, path)
    assert problems
    return "\n".join(map(str, problems))


def test_a_class_beside_the_experiment_is_found_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "h2_net.py").write_text("raise RuntimeError('the wrong file')")
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "h2_net.py").write_text(NET.format(name="Net"))
    path = write(tmp_path)
    experiment = load_experiment(str(path)).experiment
    use_own_code(experiment, path)
    network = build_own_model(OwnClass("h2_net", "Net"), experiment.model.kwargs)
    assert sum(parameter.numel() for parameter in network.parameters()) == 15


def test_a_runs_copy_is_found_beside_its_resolved_yaml(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "h2_net.py").write_text(NET.format(name="Net"))
    path = write(tmp_path)
    use_own_code(load_experiment(str(path)).experiment, path)
    assert sys.path[-1] == str(tmp_path / "code")


def test_a_module_that_is_not_there_names_the_folder_and_what_is_in_it(tmp_path):
    (tmp_path / "h2_other.py").write_text("")
    text = refused(write(tmp_path))
    assert f"model.class: there is no h2_net.py in {tmp_path}" in text
    assert "a module of that folder (h2_other)" in text


def test_a_class_that_is_not_there_gets_the_nearest(tmp_path):
    (tmp_path / "h2_net.py").write_text(NET.format(name="Nett"))
    assert "h2_net has no Net; did you mean 'Nett'?" in refused(write(tmp_path))


def test_what_is_no_module_of_torch_is_refused(tmp_path):
    (tmp_path / "h2_net.py").write_text("class Net: ...\n")
    assert "h2_net:Net is the class Net, no torch.nn.Module" in refused(write(tmp_path))


def test_arguments_that_do_not_fit_show_the_signature(tmp_path):
    (tmp_path / "h2_net.py").write_text(NET.format(name="Net"))
    text = refused(write(tmp_path, kwargs="{wdth: 3}"))
    assert "model.kwargs: h2_net:Net cannot be built: missing a required argument: 'width'" in text
    assert "allowed: (width)" in text


def test_a_network_without_a_layer_that_can_be_its_head_is_refused(tmp_path):
    (tmp_path / "h2_net.py").write_text("from torch import nn\nclass Net(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n")
    assert "model.head: Net has no linear layer and no 1 x 1 convolution that could be its head" in refused(write(tmp_path))


def test_an_error_while_importing_or_building_names_its_line(tmp_path):
    (tmp_path / "h2_net.py").write_text("import torch\n\nraise RuntimeError('no licence')\n")
    assert f"{tmp_path}/h2_net.py:3: model.class: importing h2_net failed: RuntimeError: no licence" in refused(write(tmp_path))
    (tmp_path / "h2_net.py").write_text("class Net(:\n")
    assert f"{tmp_path}/h2_net.py:1: model.class: importing h2_net failed: SyntaxError" in refused(write(tmp_path))


def test_a_file_named_like_an_installed_module_is_refused(tmp_path):
    (tmp_path / "h2_net.py").write_text("import datasets\n")
    (tmp_path / "datasets.py").write_text("")
    assert "datasets in" in (text := refused(write(tmp_path)))
    assert "has the name of an installed module" in text


def beside_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> Path:
    """Returns the copy that weights came with; h2_net.py lies beside the script, too, as where README's experiment is."""
    (tmp_path / "code").mkdir()
    (tmp_path / "h2_net.py").write_text(NET.format(name="Net"))
    (tmp_path / "code" / "h2_net.py").write_text(kept)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "code"


@pytest.mark.parametrize("kept", [NET.format(name="Net"), NET.format(name="Net").replace("4, width", "5, width")])
def test_a_runs_own_copy_is_taken_where_the_file_it_was_copied_from_lies_beside_the_script(kept, tmp_path, monkeypatch):
    folder = beside_and_kept(tmp_path, monkeypatch, kept)
    network = build_own_model(OwnClass("h2_net", "Net"), {"width": 3}, folder)
    assert network.in_features == (5 if "5, width" in kept else 4)


def test_another_file_of_that_name_that_python_has_imported_is_refused(tmp_path, monkeypatch):
    folder = beside_and_kept(tmp_path, monkeypatch, "# an earlier one\n")
    importlib.import_module("h2_net")
    with pytest.raises(ConfigError, match=f"h2_net in {folder} is another file than the one in {tmp_path}, which Python would take instead"):
        build_own_model(OwnClass("h2_net", "Net"), {"width": 3}, folder)


def test_an_installed_module_of_that_name_is_refused_for_a_runs_own_copy_too(tmp_path):
    (tmp_path / "datasets.py").write_text("")
    with pytest.raises(ConfigError, match="has the name of an installed module"):
        build_own_model(OwnClass("datasets", "Net"), {}, tmp_path)


def test_the_files_a_module_imports_go_with_it(tmp_path):
    (tmp_path / "h2_net.py").write_text("import torch\nfrom h2_layers import Layer\n")
    (tmp_path / "h2_layers.py").write_text("def f():\n    import h2_pack.inner\n")
    (tmp_path / "h2_pack").mkdir()
    (tmp_path / "h2_pack/__init__.py").write_text("")
    (tmp_path / "h2_pack/inner.py").write_text("")
    (tmp_path / "h2_unrelated.py").write_text("")
    assert list(map(str, find_code(tmp_path, "h2_net"))) == ["h2_layers.py", "h2_net.py", "h2_pack/__init__.py", "h2_pack/inner.py"]


TASK = "from pydantic import BaseModel\nclass Options(BaseModel, extra='forbid'):\n    gamma: float\ndef build_task(experiment): ...\n"


def test_the_options_of_a_task_file_are_checked(tmp_path):
    (tmp_path / "h2_task.py").write_text(TASK)
    (tmp_path / "h2_net.py").write_text(NET.format(name="Net"))
    own = "{{kind: own, file: h2_task.py, options: {options}}}"
    assert "task.options.gamma: the key is missing" in refused(write(tmp_path, task=own.format(options="{}")))
    assert "task.options.gama: unknown key; did you mean 'gamma'?" in refused(write(tmp_path, task=own.format(options="{gama: 1.0, gamma: 1.0}")))
    path = write(tmp_path, task=own.format(options="{gamma: 2.0}"))
    assert find_problems(load_experiment(str(path)).experiment, path) == []


def test_a_task_made_of_one_that_is_there_is_used_as_that_one(tmp_path):
    (tmp_path / "h2_net.py").write_text(NET.format(name="Net"))
    (tmp_path / "h2_task.py").write_text(TASK)
    derived = TASK.replace("pydantic import BaseModel", "launch.config.tasks import Ner as BaseModel").replace(", extra='forbid'", "")
    (tmp_path / "h2_derived.py").write_text(derived)
    for name, options, first in (("h2_task", "{gamma: 1.0}", None), ("h2_derived", "{kind: ner, gamma: 1.0}", "from transformers import pipeline")):
        path = write(tmp_path, task=f"{{kind: own, file: {name}.py, options: {options}}}")
        experiment = load_experiment(str(path)).experiment
        use_own_code(experiment, path)
        assert own_usage(experiment).get("usage", [None])[0] == first


SIZED = "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self, {sizes}, width=1):\n        super().__init__(4, width)\n"


@pytest.mark.parametrize(
    ("sizes", "task"),
    [("num_features, num_letters", r"{kind: speech_ctc, name_pattern: '(?P<text>.).wav'}"), ("num_items", "{kind: recommender_autoencoder}")],
)
def test_a_class_that_the_data_tells_its_sizes_is_checked_with_stand_ins(sizes, task, tmp_path):
    given = sizes.partition(",")[0]
    (tmp_path / "h2_net.py").write_text(SIZED.format(sizes=sizes))
    path = write(tmp_path, task=task)
    assert find_problems(load_experiment(str(path)).experiment, path) == []
    assert f"model.kwargs.{given}: the data decides it" in refused(write(tmp_path, kwargs=f"{{{given}: 5}}", task=task))
    assert "unexpected keyword argument 'wdth'" in refused(write(tmp_path, kwargs="{wdth: 5}", task=task))


def test_a_task_file_without_build_task_is_refused(tmp_path):
    (tmp_path / "h2_task.py").write_text("from pydantic import BaseModel\nclass Options(BaseModel): ...\n")
    (tmp_path / "h2_net.py").write_text(NET.format(name="Net"))
    assert "h2_task has no build_task" in refused(write(tmp_path, task="{kind: own, file: h2_task.py}"))


KEPT_TASK = """\
from pydantic import BaseModel
from h2_reading import SIZE
from launch.config.prepared import prepared_dir
class Options(BaseModel): ...
class Task:
    def __init__(self, folder):
        self.folder = folder
    def build_metrics(self):
        return {}
def build_task(experiment):
    return Task(prepared_dir(experiment))
"""


def prepared_folder(path: Path) -> str:
    """Returns where a new process would keep the task's prepared data."""
    for name in ("h2_kept", "h2_reading"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    experiment = load_experiment(str(path)).experiment
    use_own_code(experiment, path)
    return build_own_task(experiment).folder.name


def test_data_is_prepared_anew_when_the_task_file_or_what_it_imports_changes(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "h2_net.py").write_text(NET.format(name="Net"))
    (tmp_path / "h2_reading.py").write_text("SIZE = 1\n")
    (tmp_path / "h2_kept.py").write_text(KEPT_TASK)
    path = write(tmp_path, task="{kind: own, file: h2_kept.py}")
    path.write_text(path.read_text().replace("./pictures", str(tmp_path / "pictures")))
    folders = [prepared_folder(path)]
    assert folders[0].startswith("own-")
    (tmp_path / "h2_net.py").write_text("# the model prepares no data\n" + NET.format(name="Net"))
    assert prepared_folder(path) == folders[0]
    (tmp_path / "h2_reading.py").write_text("SIZE = 2222\n")
    folders.append(prepared_folder(path))
    (tmp_path / "h2_kept.py").write_text(KEPT_TASK + "# read otherwise\n")
    folders.append(prepared_folder(path))
    assert len(set(folders)) == 3
