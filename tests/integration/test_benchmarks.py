"""The benchmarks of speed run, small, on a CPU: what they measure there means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("contender", "work"), [("fullrank", "bert"), ("HF Trainer", "resnet")])  # the plain loop runs below
def test_gpu_benchmark_measures_each_contender(contender, work, tmp_path):
    result = tmp_path / "result.json"
    argv = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", "--seconds", "0.2", "--contender", contender, "--work", work]
    subprocess.run([*argv, "--result", str(result)], check=True, cwd=tmp_path, timeout=580)
    found = json.loads(result.read_text())
    assert found["problem"] == ""
    assert found["steps"] > 0
    assert found["samples_per_second"] > 0


def test_scaling_benchmark_prints_a_row_of_two_processes(tmp_path):
    argv = [sys.executable, str(BENCHMARKS / "scaling.py"), "--tiny", "--processes", "2", "--steps", "3", "--rounds", "1"]
    answer = subprocess.run(argv, check=True, cwd=tmp_path, timeout=580, stdout=subprocess.PIPE, text=True).stdout
    assert answer.splitlines()[-1].startswith("| 2 |")
