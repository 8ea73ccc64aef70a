"""A cross-section of the campaigns in benchmarks/: real processes, stopped or killed where it hurts, resumed, compared bit by bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ranks import clean_environment
from tests.tiny import tiny_bert, tiny_sentences

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def campaign(folder: Path, name: str, *words: str) -> str:
    """Runs a campaign and returns what it printed; fails with it if anything was not as it should be."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FULLRANK_")} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / name), *words, "--folder", str(folder)]
    ended = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_three_ranks_stopped_in_any_phase_resume_bit_identically(tmp_path: Path) -> None:
    places = "mid_accumulation,evaluation,loading_model"
    out = campaign(tmp_path, "bit_identity.py", "--tasks", "text", "--processes", "3", "--precisions", "fp32", "--workers", "2", "--places", places)
    assert "3 of 3 interrupted trainings are bit-identical" in out


def test_augmented_images_stopped_in_an_evaluation_resume_bit_identically(tmp_path: Path) -> None:
    words = ("--tasks", "image", "--processes", "2", "--precisions", "bf16", "--workers", "0", "--places", "evaluation")
    assert "1 of 1 interrupted trainings are bit-identical" in campaign(tmp_path, "bit_identity.py", *words)


def test_kills_lose_one_interval_at_most_and_nothing_damaged_is_loaded(tmp_path: Path) -> None:
    out = campaign(tmp_path, "kills.py", "--kills", "4", "--kills-a-run", "4", "--steps", "60", "--every", "5")
    assert "4 kills (seed 0)" in out
    assert "0 problems; every finished training was compared bit by bit" in out


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
    command = [sys.executable, "-m", "launch", "verify", str(tmp_path / "tiny.yaml"), "--steps", "200", "--stop-at", "5", "--run-dir", "proof"]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all the same to the last bit" in ended.stdout
    status = json.loads((tmp_path / "proof" / "stopped" / "status.json").read_text())
    assert (status["state"], status["attempt"]) == ("completed", 2)
