"""Where a model's files lie on this machine, before anything is fetched, and how large it is by them."""

from __future__ import annotations

from pathlib import Path

from launch.config.experiment import Experiment
from launch.config.hub import hub_cache
from launch.config.run_dir import RunDir
from launch.config.sources import HubName, LocalPath, PackageFile, Source, TorchvisionModel, cache_root
from launch.config.tasks import Distill
from launch.sizes.counted import count_with_torch
from launch.sizes.lora_size import with_adapters
from launch.sizes.model_size import HeadKind, ModelSize, UnknownSize, read_body, read_model_size
from launch.sizes.torchvision_sizes import torchvision_size

_HEADS: dict[str, HeadKind] = {"masked_lm": "words", "ner": "tokens", "question_answering": "tokens"}
"""task.kind -> what its head judges, where that is not a whole text."""


def probe_model_size(experiment: Experiment, source: Source) -> ModelSize | UnknownSize:
    """Returns how large the experiment's model is, by the files that are here, a table, or torch; reads headers, never weights."""
    num_labels = len(getattr(experiment.task, "label_names", None) or ()) or None
    frozen = [] if experiment.train.unfreeze_at else experiment.model.freeze  # what thaws later must fit then
    if isinstance(source, TorchvisionModel):
        size = torchvision_size(source.name, num_labels, frozen)
        return size if isinstance(size, ModelSize) else count_with_torch("torchvision", source.name, num_labels, frozen)
    if experiment.task.READS != "texts":
        return UnknownSize("only its own code knows the model")
    if experiment.model.config is not None:
        return UnknownSize("transformers builds the model from model.config")
    if isinstance(experiment.task, Distill) and (experiment.task.layers is not None or experiment.task.vocabulary != "whole"):
        return UnknownSize("the student is cut out of the model when the data has been read")
    folder = find_model_folder(source)
    if folder is None:
        return UnknownSize("the model has not been fetched yet")
    size, lora = read_model_size(folder, num_labels, frozen, _HEADS.get(experiment.task.kind, "texts")), experiment.model.lora
    if isinstance(size, UnknownSize):
        return count_with_torch("transformers", str(folder), num_labels, frozen, lora) if size.is_countable else size
    if lora is None:
        return size
    model_type, body = read_body(folder)
    if body is None:
        return count_with_torch("transformers", str(folder), num_labels, frozen, lora)
    return with_adapters(size, body, size.head, lora, model_type)


def find_model_folder(source: Source) -> Path | None:
    """Returns the folder with the config.json of a model, None where it is not on this machine (or is none)."""
    if isinstance(source, LocalPath):
        run = RunDir(source.path)
        candidates = [run.model if run.resolved.is_file() else source.path]
    elif isinstance(source, PackageFile):
        candidates = [cache_root() / "pypi" / source.sha256 / "files" / source.path]
    elif isinstance(source, HubName):
        candidates = sorted((hub_cache() / f"models--{source.name.replace('/', '--')}" / "snapshots").glob("*"))
    else:
        candidates = []
    return next((folder for folder in candidates if (folder / "config.json").is_file()), None)
