"""A cross-section of the campaigns in benchmarks/: real processes, stopped or killed where it hurts, resumed, compared bit by bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    places = "mid_accumulation,evaluation,loading_model,test"
    out = campaign(tmp_path, "bit_identity.py", "--tasks", "text", "--processes", "3", "--precisions", "fp32", "--workers", "2", "--places", places)
    assert "4 of 4 interrupted trainings are bit-identical" in out


def test_augmented_images_stopped_in_an_evaluation_resume_bit_identically(tmp_path: Path) -> None:
    words = ("--tasks", "image", "--processes", "2", "--precisions", "bf16", "--workers", "0", "--places", "evaluation")
    assert "1 of 1 interrupted trainings are bit-identical" in campaign(tmp_path, "bit_identity.py", *words)


def test_kills_lose_one_interval_at_most_and_nothing_damaged_is_loaded(tmp_path: Path) -> None:
    out = campaign(tmp_path, "kills.py", "--kills", "4", "--kills-a-run", "4", "--steps", "60", "--every", "5")
    assert "4 kills (seed 0)" in out
    assert "0 problems; every finished training was compared bit by bit" in out
