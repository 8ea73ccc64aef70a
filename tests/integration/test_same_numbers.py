"""The same training on any world size, and after a stop: real processes over gloo."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.config.load import load_experiment
from launch.config.run_dir import RunDir
from tests.forked_ranks import fork_ranks
from tests.ranks import TIMEOUT_S, read_records, start_ranks, train
from tests.tiny import tiny_bert, tiny_sentences
from trainers.tasks import build_task

SGD = ("optimizer.name=sgd", "optimizer.lr=0.5", "train.gradient_clip_norm=0.05", "schedule.name=constant")
DROPOUT = ("model.dropout=0.1", "train.duration=40 steps", "data.num_workers=2", "schedule.name=cosine", "schedule.warmup=10 %")
ADAMW = ("optimizer.name=adamw", "optimizer.lr=1e-3")


pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on ragged sentences whose number is no multiple of any batch; fp32, no dropout."""
    folder = tmp_path_factory.mktemp("tiny")
    values = {
        "name": "tiny",
        "seed": 3,
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.0},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32},
        "data": {
            "source": str(tiny_sentences(folder / "sentences.tsv", 203)),
            "splits": {"validation": None},
            "validation_fraction": 0.2,
            "num_workers": 0,
        },
        "train": {"duration": "50 steps", "global_batch_size": 24},
        "optimizer": {"lr": 1e-3},
        "evaluate": {"every": "25 steps", "metric": "accuracy"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def one_process(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], list[dict[str, float]]]:
    folder = tmp_path_factory.mktemp("one")
    return {options: train(experiment, folder / options[0].partition("=")[2], *options) for options in (SGD, ADAMW)}


@pytest.mark.parametrize("options", [SGD, ADAMW], ids=["sgd_with_clipping", "adamw"])
@pytest.mark.parametrize(("num_processes", "micro_batch"), [(1, 4), (2, 12), (3, 4)])
def test_losses_and_gradient_norms_do_not_depend_on_processes_or_accumulation(
    options: tuple[str, ...],
    num_processes: int,
    micro_batch: int,
    experiment: Path,
    one_process: dict[tuple[str, ...], list[dict[str, float]]],
    tmp_path: Path,
) -> None:
    records = train(experiment, tmp_path / "run", *options, f"train.micro_batch_size={micro_batch}", num_processes=num_processes)
    expected = one_process[options]
    assert [(r["step"], r["split"]) for r in records] == [(r["step"], r["split"]) for r in expected]
    assert len([r for r in records if r["split"] == "train"]) == 50
    for record, reference in zip(records, expected, strict=True):
        for name in ("loss", "gradient_norm", "accuracy", "lr", "num_samples"):
            if name in reference:
                assert record[name] == pytest.approx(reference[name], rel=1e-5, abs=1e-12), (record["step"], name)


def test_clipping_fires_in_the_sgd_runs(one_process: dict[tuple[str, ...], list[dict[str, float]]]) -> None:
    assert sum(record["gradient_norm"] > 0.05 for record in one_process[SGD] if record["split"] == "train") > 40


@pytest.fixture(scope="module")
def undisturbed(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs with dropout and data workers that nothing stopped, by number of processes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for num_processes in (1, 2):
        train(experiment, folder / str(num_processes), *DROPOUT, num_processes=num_processes)
    return {num_processes: folder / str(num_processes) for num_processes in (1, 2)}


def test_the_worst_samples_of_two_ranks_are_the_worst_of_the_split(undisturbed: dict[int, Path]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    run = RunDir(undisturbed[2])
    kept = json.loads((run.evaluations / "validation.json").read_text())
    task = build_task(load_experiment(str(run.resolved)).experiment)
    model = AutoModelForSequenceClassification.from_pretrained(run.model).eval()  # the weights of that evaluation: the best
    samples: Any = task.dataset("validation")
    with torch.inference_mode():
        losses = [task.evaluate_batch(model, task.collate([samples[0, index]]))[0].item() for index in range(task.num_samples["validation"])]
    worst = sorted(range(len(losses)), key=lambda index: -losses[index])[:10]
    assert [sample["index"] for sample in kept["worst"]] == worst
    assert [sample["loss"] for sample in kept["worst"]] == pytest.approx([losses[index] for index in worst], rel=1e-4)
    assert all(sample["label"] in ("0", "1") and sample["shown"] for sample in kept["worst"])
    assert kept["worst"][0]["shown"] in run.report.read_text()
    assert kept["worst"][0]["shown"] in run.report_page.read_text()


@pytest.mark.parametrize(("number", "num_processes"), [(signal.SIGUSR2, 1), (signal.SIGTERM, 2), (signal.SIGINT, 2)])
def test_a_warned_stop_loses_no_step_and_the_resumed_run_is_bit_identical(
    number: signal.Signals, num_processes: int, experiment: Path, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    whole, run = undisturbed[num_processes], tmp_path / "run"
    start = start_ranks if number == signal.SIGTERM else fork_ranks
    ranks = start(["--config", str(experiment), "--run-dir", str(run), *DROPOUT], num_processes)
    wait_for_step(run, 7)
    ranks[-1].send_signal(number)
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [130 if number == signal.SIGINT else 75] * num_processes, outputs
    status = json.loads((run / "status.json").read_text())
    last = read_records(run, "train")[-1]["step"]
    assert (status["state"], status["cause"], status["step"]) == ("stopped", "user" if number == signal.SIGINT else "preempted", last)
    assert (run / "checkpoints" / f"checkpoint-{last}" / "manifest.json").is_file()
    resumed = train(experiment, run, *DROPOUT, num_processes=num_processes)
    exact = ("step", "epoch", "split", "loss", "gradient_norm", "lr", "accuracy")
    assert [{key: r.get(key) for key in exact} for r in resumed] == [{key: r.get(key) for key in exact} for r in read_records(whole)]
    assert (run / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()


def test_a_run_goes_on_with_another_number_of_processes_where_it_stopped(
    experiment: Path, one_process: dict[tuple[str, ...], list[dict[str, float]]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for steps, num_processes in ((13, 2), (29, 1), (50, 3)):
        train(experiment, run, *SGD, f"train.duration={steps} steps", "checkpoint.every=1000 steps", num_processes=num_processes)
    losses = [record["loss"] for record in read_records(run, "train")]
    assert losses == pytest.approx([record["loss"] for record in one_process[SGD] if record["split"] == "train"], rel=1e-5)


def wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not any(record["step"] >= step for record in read_records(run, "train")):
        assert time.monotonic() < deadline, "training did not get to the step in time"
        time.sleep(0.05)
