"""Imports what an experiment takes from one's own Python files, as the ranks will: python -P -m trainers.own_code_check EXPERIMENT [KEY=VALUE ...]

Started by `fullrank check`, which never imports torch itself. Prints a JSON list of problems as its last line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from launch.config.errors import EXIT_CONFIG, EXIT_DONE, ConfigError, Problem
from launch.config.experiment import Experiment
from launch.config.load import load_experiment
from launch.config.resolve import resolve
from launch.config.sources import OwnClass, parse_model
from launch.config.tasks import DetectionFasterRcnn, ImageClassification, OwnTask, RecommenderAutoencoder, SegmentationFcn, SpeechCtc
from trainers.models.heads import find_head
from trainers.models.own_networks import sized_arguments
from trainers.own_code import build_own_model, import_own_module, read_options, use_own_code


def main(arguments: Sequence[str]) -> int:
    """Prints what is wrong with the experiment's own code; returns the exit code."""
    loaded = load_experiment(arguments[0], arguments[1:])
    problems = find_problems(resolve(loaded), loaded.path)
    print("\n" + json.dumps([asdict(problem) for problem in problems]))
    return EXIT_CONFIG if problems else EXIT_DONE


def find_problems(experiment: Experiment, experiment_file: Path) -> list[Problem]:
    """Returns every problem of model.class and task.file: not there, not importable, of the wrong kind, no head, options that do not fit."""

    def build_model() -> None:
        source = parse_model(experiment.model)
        if isinstance(source, OwnClass):
            sizes = _stand_in_sizes(experiment)
            network = build_own_model(source, sized_arguments(experiment.model, sizes) if sizes else experiment.model.kwargs)
            if isinstance(experiment.task, ImageClassification):
                find_head(network, experiment.model.head)

    def read_task() -> None:
        if isinstance(experiment.task, OwnTask):
            read_options(import_own_module(experiment.task.file.removesuffix(".py"), "task.file"), experiment.task)

    return _problems_of(lambda: use_own_code(experiment, experiment_file)) or [*_problems_of(build_model), *_problems_of(read_task)]


def _stand_in_sizes(experiment: Experiment) -> dict[str, int]:
    """Returns the sizes that the task tells its class; those that only the data knows are small ones in their place."""
    match experiment.task:
        case SpeechCtc() as task:
            return {"num_features": task.num_mels, "num_letters": 2}
        case RecommenderAutoencoder():
            return {"num_items": 2}
        case SegmentationFcn() | DetectionFasterRcnn():
            return {"num_classes": 2}
    return {}


def _problems_of(step: Callable[[], None]) -> list[Problem]:
    try:
        step()
    except ConfigError as error:
        return list(error.problems)
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
