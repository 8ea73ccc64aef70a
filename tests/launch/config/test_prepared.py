from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from launch.config.experiment import Experiment
from launch.config.prepared import INFO_FILE, prepared_dir, read_prepared


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def experiment(source: str, model: str = "some/bert", seed: int = 0, **data: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "x",
            "seed": seed,
            "model": {"source": model},
            "task": {"kind": "text_classification", "text": "text", "label": "label"},
            "data": {"source": source} | data,
            "train": {"duration": "1 epoch", "global_batch_size": 8},
            "optimizer": {"lr": 1e-3},
        }
    )


def test_the_samples_of_prepared_data_are_read_from_its_info(cache: Path) -> None:
    some = experiment("some/data")
    assert read_prepared(some) is None
    folder = prepared_dir(some)
    assert folder.parent == cache / "prepared"
    folder.mkdir(parents=True)
    (folder / INFO_FILE).write_text(json.dumps({"num_samples": {"train": 5, "validation": 2}}), encoding="utf-8")
    assert read_prepared(some) == {"train": 5, "validation": 2}


def test_only_what_determines_the_data_makes_another_folder() -> None:
    same = prepared_dir(experiment("some/data"))
    assert prepared_dir(experiment("some/data", num_workers=7)) == same
    assert prepared_dir(experiment("some/data", seed=1)) == same
    others = [
        experiment("other/data"),
        experiment("some/data:part"),
        experiment("some/data", model="other/bert"),
        experiment("some/data", limit=5),
        experiment("some/data", on_bad_row="skip"),
        experiment("some/data", test_fraction=0.5),
        experiment("some/data", test_fraction=0.5, seed=1),
    ]
    assert len({same, *map(prepared_dir, others)}) == len(others) + 1


def test_a_local_file_that_changes_makes_another_folder(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("a", encoding="utf-8")
    os.utime(path, ns=(0, 10))
    before = prepared_dir(experiment(str(path)))
    in_folder = prepared_dir(experiment(str(tmp_path), splits={"train": "train.tsv", "validation": None}))
    os.utime(path, ns=(0, 11))
    assert prepared_dir(experiment(str(path))) != before
    assert prepared_dir(experiment(str(tmp_path), splits={"train": "train.tsv", "validation": None})) != in_folder


def test_a_model_whose_tokenizer_changes_makes_another_folder_but_weights_do_not(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    before = prepared_dir(experiment("some/data", model=str(tmp_path)))
    (tmp_path / "model.safetensors").write_text("x", encoding="utf-8")
    assert prepared_dir(experiment("some/data", model=str(tmp_path))) == before
    (tmp_path / "tokenizer.json").write_text("{ }", encoding="utf-8")
    assert prepared_dir(experiment("some/data", model=str(tmp_path))) != before
