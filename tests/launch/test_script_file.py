from __future__ import annotations

import re

import pytest

from launch.config.errors import ConfigError
from launch.config.experiment import NAME_PATTERN
from launch.script_file import read_script


@pytest.mark.parametrize(
    ("text", "joins"),
    [
        ("print('hello')", False),
        ("import torch\nmodel = torch.nn.Linear(1, 1)", False),
        ("from accelerate import Accelerator", True),
        ("import torch.distributed as dist", True),
        ("from torch import distributed", True),
        ("import torch\ntorch.distributed.init_process_group()", True),
        ("import os\nrank = os.environ.get('RANK')", True),
        ("def later():\n    import deepspeed", True),
    ],
)
def test_script_joins_processes_if_it_uses_what_does(tmp_path, text, joins):
    (tmp_path / "train.py").write_text(text)
    assert read_script(tmp_path / "train.py").joins_processes is joins


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("train.py", "train"),
        ("...py", "script"),
        ("..py", "script"),
        (".hidden.py", "hidden"),
        ("two\nlines.py", "two-lines"),
        ("a b ü.py", "a-b"),
        ("x" * 150 + ".py", "x" * 100),
    ],
)
def test_run_is_named_as_an_experiment_could_be(tmp_path, file, name):
    (tmp_path / file).write_text("")
    found = read_script(tmp_path / file).name
    assert found == name
    assert re.fullmatch(NAME_PATTERN, found)


def test_own_modules_are_read_too_and_belong_to_the_sources(tmp_path):
    (tmp_path / "train.py").write_text("from parts.loop import fit\nimport json")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "parts" / "loop.py").write_text("import accelerate, helpers\nfrom .data import rows\nfrom . import text")
    (tmp_path / "parts" / "data.py").write_text("")
    (tmp_path / "parts" / "text.py").write_text("")
    (tmp_path / "text.py").write_text("")
    (tmp_path / "helpers.py").write_text("")
    (tmp_path / "unused.py").write_text("")
    script = read_script(tmp_path / "train.py")
    assert script.joins_processes
    assert sorted(str(path.relative_to(tmp_path)) for path in script.sources) == [
        "helpers.py",
        "parts/__init__.py",
        "parts/data.py",
        "parts/loop.py",
        "parts/text.py",
        "train.py",
    ]


def test_missing_script_names_those_that_are_there(tmp_path):
    (tmp_path / "train.py").write_text("")
    with pytest.raises(ConfigError) as caught:
        read_script(tmp_path / "trian.py")
    assert str(caught.value) == f"{tmp_path}/trian.py: --script: there is no such script\n    allowed: there: train.py\n    try: check the path"


def test_syntax_error_is_found_before_anything_starts(tmp_path):
    (tmp_path / "train.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(ConfigError, match=r"train\.py:2: --script: is not Python: invalid syntax"):
        read_script(tmp_path / "train.py")


def test_module_that_is_not_python_is_left_for_python_to_refuse(tmp_path):
    (tmp_path / "train.py").write_text("try:\n    import broken\nexcept SyntaxError:\n    pass")
    (tmp_path / "broken.py").write_text("print 'old'")
    assert read_script(tmp_path / "train.py").sources == (tmp_path / "train.py",)


def test_experiment_given_as_a_script_is_told_apart(tmp_path):
    (tmp_path / "x.yaml").write_text("name: x")
    with pytest.raises(ConfigError, match=r"is not a Python script\n    try: fullrank run .*x\.yaml"):
        read_script(tmp_path / "x.yaml")
