"""A cross-section of the campaigns in benchmarks/: real processes, stopped or killed where it hurts, resumed, compared bit by bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks import clean_environment

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.campaign


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
