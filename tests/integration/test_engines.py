"""The same training under every engine, after a stop, on another world size and under another engine: real processes over gloo."""

from __future__ import annotations

import functools
import json
import math
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engines import SGD, told, write_experiment, write_strategies
from tests.forked_ranks import fork_ranks
from tests.ranks import TIMEOUT_S, read_records, start_ranks, train
from tests.tiny_pictures import tiny_folder

pytestmark = pytest.mark.integration
SHARDED = ("fsdp2", "zero2", "zero3")
Whole = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    write_experiment(folder)
    write_strategies(folder)
    return folder


def run(folder: Path, name: str, engine: str, num_processes: int, *options: str, **keywords: Any) -> list[dict[str, Any]]:
    return train(folder / "tiny.yaml", folder / name, *told(folder, engine), *SGD, *options, num_processes=num_processes, **keywords)


@pytest.fixture(scope="module")
def one_process(folder: Path) -> list[dict[str, Any]]:
    return run(folder, "one", "single", 1)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Whole:
    """Trains on two processes that nothing stops, accumulating 3 micro-batches; once an engine."""
    return functools.cache(lambda engine: run(folder, engine, engine, 2, "train.micro_batch_size=4"))


@pytest.mark.parametrize("engine", SHARDED)
def test_losses_gradient_norms_and_metrics_are_those_of_one_process(engine: str, whole: Whole, one_process: list[dict[str, Any]]) -> None:
    assert [(r["step"], r["split"]) for r in whole(engine)] == [(r["step"], r["split"]) for r in one_process]
    assert sum(r["gradient_norm"] > 0.05 for r in one_process if r["split"] == "train") > 15  # clipping fires
    for record, reference in zip(whole(engine), one_process, strict=True):
        for name in ("loss", "gradient_norm", "accuracy", "lr", "num_samples"):
            if name in reference:
                assert record[name] == pytest.approx(reference[name], rel=1e-5), (record["step"], name)


@pytest.mark.parametrize(("engine", "share"), [("fsdp2", 0.5), ("zero2", 1.0), ("zero3", 0.5)])
def test_a_rank_holds_its_share_of_the_parameters(engine: str, share: float, whole: Whole, one_process: Any, folder: Path) -> None:
    whole(engine)
    total = json.loads((folder / "one" / "status.json").read_text())["parameter_bytes"][0]
    held = json.loads((folder / engine / "status.json").read_text())["parameter_bytes"]
    assert held == pytest.approx([share * total] * 2, rel=0.05)


@pytest.mark.parametrize("engine", SHARDED)
def test_exported_weights_load_in_the_library_and_predict_the_same(engine: str, whole: Whole, one_process: Any, folder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    whole(engine)
    ids = torch.arange(5, 25).reshape(2, 10)
    logits = []
    for name in ("one", engine):
        model, report = AutoModelForSequenceClassification.from_pretrained(folder / name / "model", output_loading_info=True)
        assert not report["missing_keys"]
        assert type(model).__name__ == "BertForSequenceClassification"
        with torch.no_grad():
            logits.append(model.eval()(ids).logits)
    assert (logits[0] - logits[1]).abs().max() < 1e-5


@pytest.mark.parametrize("engine", ["fsdp2", "zero3"])
def test_a_stopped_run_goes_on_bit_by_bit_and_on_another_world_size_and_engine(engine: str, whole: Whole, one_process: Any, folder: Path) -> None:
    stopped, options = folder / f"{engine}-stopped", ("train.micro_batch_size=4",)
    start = start_ranks if engine == "zero3" else fork_ranks
    ranks = start(["--config", str(folder / "tiny.yaml"), "--run-dir", str(stopped), *told(folder, engine), *SGD, *options], 2)
    wait_for_step(stopped, 5)
    ranks[1].send_signal(signal.SIGTERM)
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [75, 75], outputs
    shutil.copytree(stopped, folder / f"{engine}-elsewhere")

    resumed = run(folder, stopped.name, engine, 2, *options)
    exact = ("step", "split", "loss", "gradient_norm", "lr", "accuracy")
    assert [{key: r.get(key) for key in exact} for r in resumed] == [{key: r.get(key) for key in exact} for r in whole(engine)]
    assert (stopped / "model" / "model.safetensors").read_bytes() == (folder / engine / "model" / "model.safetensors").read_bytes()

    other, num_processes = {"fsdp2": ("zero2", 3), "zero3": ("single", 1)}[engine]
    records = run(folder, f"{engine}-elsewhere", other, num_processes)
    losses = [record["loss"] for record in records if record["split"] == "train"]
    assert losses == pytest.approx([record["loss"] for record in one_process if record["split"] == "train"], rel=1e-5)


def wait_for_step(run_dir: Path, step: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not read_records(run_dir, "train")[step - 1 :]:
        assert time.monotonic() < deadline, "training did not get to the step in time"
        time.sleep(0.05)


@pytest.mark.parametrize("engine", ["fsdp2", "zero2"])
def test_batch_norm_trains_and_evaluates_in_bf16(engine: str, folder: Path) -> None:
    sections = {
        "model": {"class": "trainers.architectures.cifar_resnet:CifarResNet", "kwargs": {"depth": 8, "num_classes": 3}},
        "task": {"kind": "image_classification", "size": 16},
        "data": {"source": str(tiny_folder(folder / "pictures")), "format": "image_folder", "splits": {"validation": "val"}, "num_workers": 0},
    }
    (folder / "of_pictures").mkdir(exist_ok=True)
    config = write_experiment(folder / "of_pictures", **sections)
    options = (
        "train.precision=bf16",
        "train.global_batch_size=12",
        "train.duration=2 steps",
        "evaluate.every=2 steps",
        "train.group_by_length=false",
    )
    records = train(config, folder / f"pictures-{engine}", *told(folder, engine), *options, num_processes=2)
    assert [record["split"] for record in records] == ["train", "train", "validation"]
    assert all(math.isfinite(record["loss"]) for record in records)
