"""Brings model, weights and prepared data of one experiment into the caches: python -P -m trainers.downloads.fetch EXPERIMENT [KEY=VALUE ...]

Started by `fullrank fetch`, one process, where there is a network. Progress goes to stderr, a JSON object to stdout.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch.config.errors import EXIT_CONFIG, EXIT_DONE, ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.load import load_experiment
from launch.config.prepared import prepared_dir
from launch.config.resolve import resolve
from launch.config.sources import HubName, OwnClass, TorchvisionModel, parse_model
from trainers.sources import MISSING_HUB_FIX, NOT_CACHED, hub_is_offline, locate, use_hub_cache_if_unreachable

OTHER_FRAMEWORKS = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "*.gguf", "*.mlmodel", "onnx/*", "openvino/*", "coreml/*")
PICKLED_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
"""Not fetched where the same weights are there as safetensors."""


@dataclass(frozen=True)
class Fetched:
    """One part of an experiment, in its cache.

    Args:
        source: as the experiment names it.
        path: where it lies; None: nothing had to be brought.
        notes: what a person should know of it, a line each.
    """

    part: str
    source: str
    path: str | None
    num_bytes: int
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Fetches every part, and prints what was fetched and what was not; returns the exit code."""
    loaded = load_experiment(arguments[0], arguments[1:])
    fetched, problems = fetch(resolve(loaded), loaded.path)
    print(json.dumps({"fetched": [asdict(part) for part in fetched], "problems": [asdict(problem) for problem in problems]}))
    return EXIT_CONFIG if problems else EXIT_DONE


def fetch(experiment: Experiment, experiment_file: Path) -> tuple[list[Fetched], list[Problem]]:
    """Returns the parts that are in the caches now, and every problem of the others; one that fails does not keep the rest from coming."""
    from trainers.own_code import use_own_code

    fetched: list[Fetched] = []
    problems: list[Problem] = []
    try:
        use_own_code(experiment, experiment_file)
    except ConfigError as error:
        problems += error.problems
    for name, part in PARTS.items():
        start = time.monotonic()
        try:
            found = part(experiment)
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]  # the data needs the model's tokenizer
            continue
        fetched += [Fetched(**(asdict(one) | {"part": name, "seconds": time.monotonic() - start})) for one in found]
    return fetched, problems


def fetch_model(experiment: Experiment) -> list[Fetched]:
    """Brings what model.source names."""
    source, spelled = parse_model(experiment.model), str(experiment.model.source)
    if isinstance(source, OwnClass):
        return []
    if isinstance(source, TorchvisionModel):
        from trainers.images import torchvision_models

        return [_found(spelled, torchvision_models.fetch(source))] if source.weights is not None else []
    return [_fetch_transformer(spelled, "model.source")]


def fetch_others(experiment: Experiment) -> list[Fetched]:
    """Brings the models that the task reads beside (task.teacher)."""
    return [_fetch_transformer(source, key) for key, source in experiment.task.sources().items() if not key.endswith("data.source")]


def fetch_weights(experiment: Experiment) -> list[Fetched]:
    """Brings the file that model.weights names."""
    if experiment.model.weights is None:
        return []
    from trainers.models.weights import locate_weights

    return [_found(experiment.model.weights, locate_weights(experiment.model.weights))]


def fetch_data(experiment: Experiment) -> list[Fetched]:
    """Brings the data, and prepares it as the ranks would: read, checked, tokenised."""
    from trainers.tasks import build_task

    locate(experiment.data.source, "data.source")  # here, so that a tokenizer that is not there hides nothing of the data
    print(f"reading and preparing {experiment.data.source}", file=sys.stderr, flush=True)
    task = build_task(experiment)
    folder = prepared_dir(experiment)
    samples = ", ".join(f"{count} {split}" for split, count in task.num_samples.items())
    found = _found(experiment.data.source, folder if folder.is_dir() else None)
    return [Fetched(found.part, found.source, found.path, found.num_bytes, notes=(f"samples: {samples}", *task.notes))]


PARTS: dict[str, Callable[[Experiment], list[Fetched]]] = {
    "model": fetch_model,
    "weights": fetch_weights,
    "other models": fetch_others,
    "data": fetch_data,
}


def _fetch_transformer(source: str, key: str) -> Fetched:
    place = locate(source, key)
    return _found(source, _fetch_repository(place) if isinstance(place, HubName) else place)


def _fetch_repository(name: HubName) -> Path:
    """Brings a model's repository into the hub's cache, without the weights of other frameworks, and without those that stand in it twice."""
    import huggingface_hub

    use_hub_cache_if_unreachable()
    ignored = list(OTHER_FRAMEWORKS)
    try:
        if not hub_is_offline() and any(file.endswith(".safetensors") for file in huggingface_hub.list_repo_files(name.name)):
            ignored += PICKLED_WEIGHTS
        return Path(huggingface_hub.snapshot_download(name.name, ignore_patterns=ignored))
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = NOT_CACHED if hub_is_offline() else next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(Problem(f"the model {name.name} cannot be fetched: {reason}", key="model.source", fix=MISSING_HUB_FIX)) from error


def _found(source: str, path: Path | None) -> Fetched:
    return Fetched("", source, str(path) if path else None, _num_bytes(path) if path else 0)


def _num_bytes(path: Path) -> int:
    files: list[Any] = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ConfigError as error:
        print(json.dumps({"fetched": [], "problems": [asdict(problem) for problem in error.problems]}))
        sys.exit(error.exit_code)
