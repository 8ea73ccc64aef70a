"""Frozen means cached: the same losses as without, on any number of ranks; computed once; the whole model in the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from tests.forked_ranks import fork_ranks
from tests.ranks import TIMEOUT_S, read_records
from tests.tiny_pictures import tiny_folder

pytestmark = pytest.mark.integration


def write_experiment(folder: Path) -> Path:
    """A ResNet-8 from random weights, all but its last layer frozen, on 24 pictures of 3 classes."""
    values = {
        "name": "frozen",
        "model": {"class": "trainers.architectures.cifar_resnet:CifarResNet", "kwargs": {"depth": 8}, "freeze": ["conv1.*", "bn1.*", "layer*"]},
        "task": {"kind": "image_classification", "size": 32},
        "data": {"source": str(tiny_folder(folder / "pictures", num_each=8)), "splits": {"validation": "val"}, "num_workers": 0},
        "train": {"duration": "3 epochs", "global_batch_size": 8},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "evaluate": {"metric": "accuracy"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }
    path = folder / "frozen.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_cached_features_give_the_same_losses_on_any_number_of_ranks_and_are_computed_once(tmp_path: Path) -> None:
    experiment, cache = write_experiment(tmp_path), tmp_path / "cache"
    runs = {"never": (1, "model.cache_features=never"), "two": (2,), "one": (1,)}
    outputs = {}
    for names in (("never", "two"), ("one",)):  # one comes after two, and finds what two computed
        started = {}
        for name in names:
            num_processes, *overrides = runs[name]
            words = ["--config", str(experiment), "--run-dir", str(tmp_path / name), *overrides]
            started[name] = fork_ranks(words, num_processes, FULLRANK_CACHE=str(cache))
        for name, ranks in started.items():
            results = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
            assert [rank.returncode for rank in ranks] == [0] * len(ranks), "\n".join(results)
            outputs[name] = results[0]
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("features/*/*/*.safetensors")}
    assert sorted(path.parent.name for path in kept) == ["train", "validation"]
    assert "frozen body" not in outputs["never"]
    assert "the frozen body's features (64 a sample) computed in" in outputs["two"]
    assert "the frozen body's features (64 a sample) found, kept in" in outputs["one"]
    losses = {name: [record["loss"] for record in read_records(tmp_path / name)] for name in runs}
    assert len(losses["one"]) == 9 + 3
    assert losses["one"] == pytest.approx(losses["never"], rel=1e-6)
    assert losses["two"] == pytest.approx(losses["never"], rel=1e-6)
    assert model_of(tmp_path / "one").keys() == model_of(tmp_path / "never").keys()
    assert json.loads((tmp_path / "one" / "model" / "classifier.json").read_text())["label_names"] == ["blue", "green", "red"]


def model_of(run: Path) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of every tensor that a run saved."""
    with safe_open(run / "model" / "model.safetensors", "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
