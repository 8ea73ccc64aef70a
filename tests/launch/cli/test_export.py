from __future__ import annotations

import ast
from pathlib import Path

import pytest

from launch.cli.export import check_exportable, compared, export, usage
from launch.config.errors import ConfigError, FullrankError, StateError
from launch.config.run_dir import RunDir

EXPERIMENT = """\
name: tiny
model: {{source: a/model}}
task: {task}
data: {{source: some/data}}
train: {{duration: 1 epoch, global_batch_size: 8}}
optimizer: {{lr: 0.001}}
"""
TEXTS = "{kind: text_classification, text: sentence, label: label}"


def run_of(folder: Path, task: str = TEXTS, is_finished: bool = True) -> RunDir:
    run = RunDir(folder / "run")
    run.model.mkdir(parents=True)
    run.resolved.write_text(EXPERIMENT.format(task=task), encoding="utf-8")
    if is_finished:
        (run.model / "model.safetensors").touch()
    return run


def test_both_models_stand_side_by_side() -> None:
    before = {"num_bytes": 90_900_000, "metrics": {"loss": 0.3, "accuracy": 0.875}, "seconds": 10.0, "num_samples": 8}
    after = {"num_bytes": 22_725_000, "metrics": {"loss": 0.31, "accuracy": 0.87}, "seconds": 6.0, "num_samples": 8}
    assert list(compared({"split": "validation", "model": before, "int8": after})) == [
        ("", "float32", "int8", "int8 / float32"),
        ("weights", "90.9 MB", "22.7 MB", "0.25"),
        ("validation loss", "0.3000", "0.3100", ""),
        ("validation accuracy", "0.8750", "0.8700", ""),
        ("evaluated in", "10.0 s", "6.0 s", "0.60"),
    ]
    assert len(list(compared({"split": None, "model": before, "int8": after}))) == 2


def test_the_lines_that_use_a_pipeline_load_the_model_in_int8(tmp_path: Path) -> None:
    assert usage(run_of(tmp_path), Path("/out")) == [
        "from transformers import pipeline",
        "from trainers.models.int8 import load_int8",
        'classify = pipeline("text-classification", model=load_int8("/out"), tokenizer="/out")',
        'print(classify("a film that is warm, funny and true"))',
    ]


@pytest.mark.parametrize("task", [TEXTS, "{kind: seq2seq}"])
def test_the_lines_name_a_folder_with_quotes_in_its_name(task: str, tmp_path: Path) -> None:
    out = tmp_path / 'a "quoted" \\ name\nü'
    tree = ast.parse("\n".join(usage(run_of(tmp_path, task), out)))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    loaded = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "load_int8"]
    assert texts.count(str(out)) == 2
    assert loaded == [f"load_int8({str(out)!r})"]


def test_the_lines_of_a_pooled_model_read_the_folder_themselves(tmp_path: Path) -> None:
    run = run_of(tmp_path, TEXTS.replace("}", ", pooling: mean}"))
    assert usage(run, Path("/out"))[1] == 'predict = load_pooled("/out")'


def test_the_lines_of_a_model_that_writes_load_it_in_int8(tmp_path: Path) -> None:
    lines = usage(run_of(tmp_path, "{kind: seq2seq}"), Path("/out"))
    assert 'tokenizer, model = AutoTokenizer.from_pretrained("/out"), load_int8("/out")' in lines


@pytest.mark.parametrize(
    ("task", "is_finished", "kind", "message"),
    [
        (TEXTS, False, StateError, "the run has no finished model\n    try: fullrank resume"),
        ("{kind: image_classification}", True, ConfigError, "image_classification trains no model of texts"),
        (TEXTS, True, ConfigError, "--out: is there already"),
    ],
)
def test_what_cannot_be_exported_is_named(task: str, is_finished: bool, kind: type[FullrankError], message: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(kind, match=message):
        check_exportable(run_of(tmp_path, task, is_finished), tmp_path / "out")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    with pytest.raises(ConfigError, match=r"resolved\.yaml/a/b: --out: cannot be made: .*resolved\.yaml is a file\n    try: --out DIR"):
        check_exportable(run, run.resolved / "a" / "b")


@pytest.mark.parametrize("out", ["", "."])
def test_the_folder_one_is_in_is_no_place_for_an_export(out: str, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    with pytest.raises(ConfigError, match=f"--out: names the folder you are in\n    allowed: .*\n    try: --out {run.int8}"):
        export(str(run.path), Path(out))
