"""`fullrank verify` with real processes and a real signal."""

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
