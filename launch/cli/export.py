"""`fullrank export`: writes a run's model in 8-bit integers for CPUs, and says what that costs and gains, with the training side's python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from launch.cli.options import Json, RunName, RunRoot, chosen_run
from launch.cli.tables import table
from launch.config.errors import EXIT_DONE, ConfigError, FullrankError, PreflightError, Problem, StateError, install_words
from launch.config.load import load_experiment
from launch.config.run_dir import RunDir
from launch.probe import missing_training_packages

_MODEL = re.compile(r'model=("(?:[^"\\]|\\.)*")')
"""The model of a line of Python, in its quotes."""


def export(
    run: RunName = "latest",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The folder to write. Default: int8 in the run directory.")] = None,
    run_root: RunRoot = None,
    as_json: Json = False,
) -> None:
    found = chosen_run(run, run_root)
    if out == Path():
        raise ConfigError(Problem("names the folder you are in", key="--out", allowed="a folder that is not there yet", fix=f"--out {found.int8}"))
    folder = (out or found.int8).expanduser().absolute()
    check_exportable(found, folder)
    answer = _export(found, folder)
    if as_json:
        print(json.dumps({"run": str(found.path), "folder": str(folder), **answer}, indent=2, ensure_ascii=False))
        return
    print("\n".join(table(list(compared(answer)))))
    print(f"\n{folder}\n")
    print("\n".join(usage(found, folder)))


def check_exportable(run: RunDir, folder: Path) -> None:
    """Raises what keeps a run from being exported into a folder, as far as names tell."""
    missing = missing_training_packages()
    if missing:
        raise PreflightError(Problem(f"{', '.join(missing)} not installed in {sys.executable}", fix=install_words("train")))
    if not (run.model / "model.safetensors").is_file():
        raise StateError(Problem("the run has no finished model", str(run.path), fix=f"fullrank resume {run.path}"))
    task = load_experiment(str(run.resolved), ()).experiment.task
    if task.READS != "texts":
        raise ConfigError(Problem(f"{task.kind} trains no model of texts, and only those are exported", str(run.path)))
    if folder.exists():
        raise ConfigError(Problem("is there already", str(folder), "--out", fix="another --out, or remove it"))
    above = next(path for path in folder.parents if path.exists())
    if not above.is_dir():
        raise ConfigError(Problem(f"cannot be made: {above} is a file", str(folder), "--out", fix="--out DIR below a folder"))


def compared(answer: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yields the rows that set both models side by side; the last column is the quotient of sizes and times."""
    before, after = answer["model"], answer["int8"]
    yield "", "float32", "int8", "int8 / float32"
    yield "weights", *(f"{side['num_bytes'] / 1e6:.1f} MB" for side in (before, after)), f"{after['num_bytes'] / before['num_bytes']:.2f}"
    if answer["split"] is None:
        return
    for name, value in before["metrics"].items():
        yield f"{answer['split']} {name}", f"{value:.4f}", f"{after['metrics'][name]:.4f}", ""
    yield "evaluated in", *(f"{side['seconds']:.1f} s" for side in (before, after)), f"{after['seconds'] / before['seconds']:.2f}"


def usage(run: RunDir, folder: Path) -> list[str]:
    """Returns the lines that use the exported model: those of the task, with the model loaded by load_int8."""
    lines = load_experiment(str(run.resolved), ()).experiment.task.usage_of(folder)
    loaded = [
        re.sub(r"AutoModelFor\w+\.from_pretrained\(", "load_int8(", re.sub(_MODEL, r"model=load_int8(\1), tokenizer=\1", line)) for line in lines
    ]
    return lines if loaded == lines else [loaded[0], "from trainers.models.int8 import load_int8", *loaded[1:]]


def _export(run: RunDir, folder: Path) -> dict[str, Any]:
    """Runs trainers.export on the CPU; returns its answer, or raises its problems."""
    command = [sys.executable, "-P", "-m", "trainers.export", str(run.path), str(folder)]
    ended = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    try:
        answer: dict[str, Any] = json.loads(ended.stdout.rstrip().rpartition("\n")[2])
    except ValueError as error:
        raise FullrankError(Problem(f"exporting ended with code {ended.returncode}; the reason stands above")) from error
    if ended.returncode != EXIT_DONE:
        raise ConfigError(*(Problem(**problem) for problem in answer["problems"]))
    return answer
