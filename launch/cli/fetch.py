"""`fullrank fetch`: brings model, data and tokenizer into the shared caches, so that the training needs no network."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import Annotated, Any

import typer

from launch.cli.options import Json, Overrides, complete_experiment
from launch.cli.tables import table
from launch.config.errors import EXIT_DONE, FullrankError, PreflightError, Problem, install_words
from launch.config.hub import hub_home, torch_home
from launch.config.load import load_experiment
from launch.config.pipeline import find_pipeline, load_pipeline
from launch.config.resolve import resolve
from launch.config.sources import HubName, TorchvisionModel, cache_root, parse_model, parse_source
from launch.probe import missing_training_packages

Fetchable = Annotated[
    str,
    typer.Argument(metavar="EXPERIMENT", help="A shipped experiment, or the path of an experiment file.", autocompletion=complete_experiment),
]


def fetch(experiment: Fetchable, overrides: Overrides = None, as_json: Json = False) -> None:
    path = find_pipeline(experiment)
    stages = load_pipeline(path, overrides or ()) if path else None
    wanted = (
        {stage.name: (stage.experiment, stages.checked(stage)) for stage in stages.stages} if stages else {"": (experiment, tuple(overrides or ()))}
    )
    resolved = [resolve(load_experiment(*one)) for one in wanted.values()]
    missing = missing_training_packages()
    if missing:
        raise PreflightError(Problem(f"{', '.join(missing)} not installed in {sys.executable}", fix=install_words("train")))
    fetched: dict[tuple[str, ...], dict[str, Any]] = {}  # a part that several stages share stands here once
    problems: list[dict[str, Any]] = []
    environment: dict[str, str] = {}
    code = EXIT_DONE
    for (stage, (name, words)), settings in zip(wanted.items(), resolved, strict=True):
        command = [sys.executable, "-P", "-m", "trainers.downloads.fetch", name, *words]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, errors="replace", check=False)
        answer = _answer(ended)
        for part in answer["fetched"]:
            fetched.setdefault((part["part"], part["source"], str(part["path"])), part)
        found = [problem | ({"where": problem["where"] or f"stage {stage}"} if stage else {}) for problem in answer["problems"]]
        problems += [problem for problem in found if problem not in problems]
        environment |= needed_environment(parse_model(settings.model), parse_source(settings.data.source, "data.source"))
        code = code or ended.returncode
    if as_json:
        answer = {"fetched": list(fetched.values()), "problems": problems, "environment": environment}
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        _print_fetched(list(fetched.values()), environment, is_whole=code == EXIT_DONE)
    for problem in problems:
        print(f"error: {Problem(**problem)}", file=sys.stderr)
    raise typer.Exit(code)


def needed_environment(model: object, data: object) -> dict[str, str]:
    """Returns the variables with which a machine without a network finds what was fetched."""
    environment = {"FULLRANK_CACHE": str(cache_root())}
    if isinstance(model, HubName) or isinstance(data, HubName):
        environment["HF_HOME"] = str(hub_home().absolute())
    if isinstance(model, TorchvisionModel):
        environment["TORCH_HOME"] = str(torch_home().absolute())
    return environment | {"HF_HUB_OFFLINE": "1"}


def _answer(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Returns what trainers.downloads.fetch printed last; libraries may have printed before it."""
    try:
        answer: dict[str, Any] = json.loads(ended.stdout.rstrip().rpartition("\n")[2])
    except ValueError as error:
        what = f"fetching ended with code {ended.returncode} before it could say what it fetched; the reason stands above"
        raise FullrankError(Problem(what)) from error
    return answer


def _print_fetched(fetched: list[dict[str, Any]], environment: dict[str, str], is_whole: bool) -> None:
    rows = []
    for part in fetched:
        size = f"{part['num_bytes'] / 2**20:.1f} MiB" if part["path"] else "as it is"
        rows.append((part["part"], size, f"{part['seconds']:.1f} s", part["path"] or part["source"]))
    for line, part in zip(table(rows), fetched, strict=True):
        print(line)
        for note in part["notes"]:
            print(f"    {note}")
    if is_whole:
        print("\nwhere there is no network, with these folders on a disk that every node sees:")
        print("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items()))
