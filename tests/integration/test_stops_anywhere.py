"""A cross-section of the campaigns in benchmarks/: real processes, stopped or killed where it hurts, resumed, compared bit by bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ranks import clean_environment
from tests.tiny import tiny_bert, tiny_sentences

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the campaigns' cross-section printed: one process imports torch, and every training is forked from it."""
    folder = tmp_path_factory.mktemp("campaigns")
    command = [sys.executable, str(ROOT / "benchmarks" / "cross_section.py"), "--folder", str(folder)]
    environment = clean_environment() | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=580)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_three_ranks_stopped_in_a_step_and_in_an_evaluation_resume_bit_identically(told: str) -> None:
    assert "2 of 2 interrupted trainings are bit-identical" in told


def test_augmented_images_stopped_in_an_evaluation_resume_bit_identically(told: str) -> None:
    assert "1 of 1 interrupted trainings are bit-identical" in told


def test_kills_lose_one_interval_at_most_and_nothing_damaged_is_loaded(told: str) -> None:
    assert "3 kills (seed 0)" in told
    assert "0 problems; every finished training was compared bit by bit" in told


def test_kills_under_zero_3_lose_one_interval_at_most_and_nothing_damaged_is_loaded(told: str) -> None:
    assert "zero3: 2 kills (seed 0)" in told


def test_adamw_goes_on_from_ddp_under_zero_2_and_back_on_other_numbers_of_processes(told: str) -> None:
    assert "3 legs, 2 moves, 6 steps of adamw; from one process at most" in told


def test_batch_norm_trains_evaluates_and_resumes_under_zero_3_as_under_ddp(told: str) -> None:
    (row,) = (line for line in told.splitlines() if line.startswith("| BatchNorm |"))
    assert row.count("exact |") == 2


def test_2_then_1_then_3_processes_load_the_samples_of_an_undisturbed_training_step_by_step(told: str) -> None:
    assert "3 attempts on 2, 1 and 3 processes: 12 of 12 steps saw the samples of the undisturbed training" in told


def test_verify_proves_an_experiment_with_a_real_signal(tmp_path: Path) -> None:
    values = {
        "name": "tiny",
        "model": {"source": str(tiny_bert(tmp_path / "bert")), "dropout": 0.1},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32},
        "data": {"source": str(tiny_sentences(tmp_path / "s.tsv", 60)), "splits": {"validation": None}, "validation_fraction": 0.3, "num_workers": 0},
        "train": {"duration": "3 epochs", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
        "evaluate": {"every": "1 epoch", "metric": "accuracy"},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    environment = clean_environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FULLRANK_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "launch", "verify", str(tmp_path / "tiny.yaml"), "--steps", "60", "--stop-at", "3", "--run-dir", "proof"]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all the same to the last bit" in ended.stdout
    status = json.loads((tmp_path / "proof" / "stopped" / "status.json").read_text())
    assert (status["state"], status["attempt"]) == ("completed", 2)
