"""Local models that are there and cannot be loaded, or not for this task: files cut off or missing, too few positions, names they lack."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from launch.config.errors import Problem
from launch.config.experiment import Experiment
from launch.config.run_dir import RunDir, read_json
from launch.config.sources import LocalPath, Source
from launch.config.tasks import Distill, Multitask
from launch.sizes.model_files import find_model_folder
from launch.sizes.model_size import read_body_names, read_header

MODEL_FILES = ("config.json", "classifier.json", "network.json")
"""What transformers looks for, what a run of image_classification writes, and what one of other networks writes."""

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")

_ONE_BODY = ("text_classification", "text_regression", "glue", "ner", "question_answering", "masked_lm")
"""Tasks whose network is a body of transformers, under its own name, and one head."""

_HEADS = ("*", "?", "[", "classifier", "cls", "head", "lm_head", "pre_classifier", "qa_outputs", "score", "vocab_")
"""How patterns begin that may match a parameter of a head."""

_SIZES = ("num_", "n_", "hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings", "embedding_size")
"""How the names in a configuration begin whose values count something."""


def find_unfit_models(experiment: Experiment, model: Source, others: Mapping[str, Source]) -> Iterator[Problem]:
    """Yields what is wrong with the models that are named, as far as small files and headers tell.

    Args:
        others: key -> what else the task reads; a teacher is a model too.
    """
    sources = {"model.source": model, **{key: source for key, source in others.items() if key == "task.teacher"}}
    for key, source in sources.items():
        if not isinstance(source, LocalPath) or not source.path.exists():
            continue
        folder = _folder(source.path)
        if folder is None:
            what = f"{source.path} is not a model's folder: it has no {MODEL_FILES[0]}"
            yield Problem(what, key=key, fix="the folder of a model that save_pretrained wrote, or a hub name")
            continue
        if key == "model.source" and experiment.model.config is not None:
            continue  # it is read for its tokenizer alone
        problem = _broken_file(folder, key)
        if problem:
            yield problem
        elif experiment.task.READS == "texts":
            yield from _too_few_positions(experiment, source, key)
    yield from _unknown_names(experiment, model)
    if isinstance(experiment.task, Distill):
        yield from _unknown_layers(experiment.task, model)
    yield from _impossible_config(experiment.model.config or {})


def _folder(path: Path) -> Path | None:
    """Returns where the files of a model are; None: it is none. That a run has no model yet is told elsewhere."""
    run = RunDir(path)
    if run.resolved.is_file():
        return run.model
    return path if any((path / name).is_file() for name in MODEL_FILES) else None


def _broken_file(folder: Path, key: str) -> Problem | None:
    """Returns what is wrong with a model's files: no JSON, or weights that are missing or end before they should."""
    fix = "copy or save the model again"
    for path in (folder / name for name in MODEL_FILES):
        if path.is_file() and read_json(path) is None:
            return Problem(f"{path} is no JSON, or only the beginning of it ({path.stat().st_size} bytes)", key=key, fix=fix)
    missing = sorted({name for path in folder.glob("*.index.json") for name in _shards(path) if not (folder / name).is_file()})
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return Problem(f"{folder} lacks {missing[0]}{more}, part of the weights", key=key, fix=fix)
    is_model = any((folder / name).is_file() for name in MODEL_FILES)
    if is_model and not any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES):
        return Problem(f"{folder} has no weights", key=key, allowed=f"a file called {', '.join(WEIGHT_FILES)}", fix=fix)
    for path in sorted(folder.glob("model*.safetensors")):
        header, size = read_header(path), path.stat().st_size
        if header is None:
            return Problem(f"{path} is no safetensors file, or only the beginning of one ({size} bytes)", key=key, fix=fix)
        end = max((tensor.get("data_offsets", (0, 0))[1] for tensor in header.values()), default=0) + _header_bytes(path)
        if size < end:
            return Problem(f"{path} is cut off: {size} bytes of {end}", key=key, fix=fix)
    return None


def _shards(index: Path) -> set[str]:
    """Returns the files that an index of weights names."""
    names = (read_json(index) or {}).get("weight_map")
    return {str(name) for name in names.values()} if isinstance(names, dict) else set()


def _unknown_names(experiment: Experiment, model: Source) -> Iterator[Problem]:
    """Yields the patterns of what is frozen that match no name: of a pretrained body by its file, of a head by what heads are called."""
    is_known = experiment.task.kind in _ONE_BODY and experiment.model.config is None
    folder = find_model_folder(model) if experiment.model.freeze and is_known else None
    names = read_body_names(folder) if folder else []
    for pattern in experiment.model.freeze if names else []:
        may_be_head = pattern.startswith(_HEADS)
        if not may_be_head and not any(fnmatchcase(name, pattern) for name in names):
            allowed = f"names like {names[0]}, {names[len(names) // 2]}, {names[-1]}"
            yield Problem(f"{pattern!r} matches no parameter", key="model.freeze", allowed=allowed)


def _too_few_positions(experiment: Experiment, source: LocalPath, key: str) -> Iterator[Problem]:
    """Yields lengths for which the model has no positions, in the words of the ranks."""
    folder = find_model_folder(source)
    limits = [] if folder is None else [(folder / "config.json", "max_position_embeddings"), (folder / "tokenizer_config.json", "model_max_length")]
    told = [(read_json(path) or {}).get(name) for path, name in limits]
    longest = min((limit for limit in told if type(limit) is int), default=None)
    for name, length in _lengths(experiment):
        if longest is not None and length > longest:
            what = f"{length} tokens, but the model {source.path} reads at most {longest}"
            yield Problem(what if key == "model.source" else f"{what} ({key})", key=name, fix=f"{name}={longest}")


def _lengths(experiment: Experiment) -> Iterator[tuple[str, int]]:
    task = experiment.task
    parts = {f"task.tasks.{name}.task": part.task for name, part in task.tasks.items()} if isinstance(task, Multitask) else {"task": task}
    for prefix, options in parts.items():
        for name in ("max_length", "block_size"):
            length = getattr(options, name, None)
            if isinstance(length, int):
                yield f"{prefix}.{name}", length


def _unknown_layers(task: Distill, model: Source) -> Iterator[Problem]:
    """Yields what is wrong with the layers that a student keeps."""
    folder = find_model_folder(model)
    config = (read_json(folder / "config.json") or {}) if folder else {}
    count = config.get("num_hidden_layers", config.get("n_layers"))
    layers = task.layers or []
    unknown = [number for number in layers if type(count) is int and number >= count]
    allowed = f"some of 0 to {count - 1}, each once" if type(count) is int else "each once"
    if unknown:
        yield Problem(f"model.source has no layer {unknown[0]}", key="task.layers", allowed=allowed)
    elif len(set(layers)) < len(layers):
        yield Problem("a layer stands there twice", key="task.layers", allowed=allowed)


def _impossible_config(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yields what no model of transformers can be built from; which keys a type has, the ranks know."""
    kind = config.get("model_type")
    if isinstance(kind, str) and kind and not _may_be_type(kind):
        yield Problem(f"transformers has no model type {kind!r}", key="model.config.model_type", allowed="gpt2, bert, ...")
    for name, value in config.items():
        if type(value) is int and value < 0 and name.startswith(_SIZES):
            yield Problem(f"{name} is {value}", key=f"model.config.{name}", allowed="a number above 0")


def _may_be_type(kind: str) -> bool:
    """Returns whether the installed transformers names such a type in its tables, which are read as text: nothing is imported."""
    found = importlib.util.find_spec("transformers")
    folders = [Path(folder) / "models" / "auto" for folder in (found.submodule_search_locations or ())] if found else []
    tables = [path for folder in folders for path in folder.glob("*auto*.py")]
    return not tables or any(f'"{kind}"' in path.read_text(encoding="utf-8", errors="replace") for path in tables)


def _header_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")
