"""A pipeline in real processes: stopped by a signal in either stage, gone on with, and the same to the last bit as one that never was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.environment import ROOT, clean_environment
from tests.tiny import tiny_bert, tiny_sentences

pytestmark = pytest.mark.integration

TIMEOUT_S = 900
STAGES = ("mlm", "classify")


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """MLM on 120 sentences with dropout, then classification that begins with what came out."""
    shared = {
        "data": {
            "source": str(tiny_sentences(tmp_path / "s.tsv", 120)),
            "splits": {"validation": None},
            "validation_fraction": 0.2,
            "num_workers": 0,
        },
        "train": {"duration": "60 steps", "global_batch_size": 4},
        "optimizer": {"lr": 1e-3},
        "evaluate": {"every": "1000 steps"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }
    model = {"source": str(tiny_bert(tmp_path / "bert"))}
    tasks = {
        "mlm": {"kind": "masked_lm", "block_size": 32},
        "classify": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32},
    }
    for name, task in tasks.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "model": model, "task": task, **shared}), encoding="utf-8")
    stages = {"mlm": {"experiment": "./mlm.yaml"}, "classify": {"experiment": "./classify.yaml", "overrides": {"model.source": "stages.mlm"}}}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({"name": "two", "stages": stages}, sort_keys=False), encoding="utf-8")
    return path


def fullrank(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = clean_environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FULLRANK_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "launch", *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], code: int) -> str:
    with process:
        output = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == code, output
    return output


def stop_in(process: subprocess.Popen[str], run: Path) -> None:
    """Sends the signal of a preemption once the run has recorded a few steps."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(losses(run)) < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    base = str(run).rpartition(".")[0]
    assert re.findall(r"go on with: fullrank resume (\S+)", ended(process, 75)) == [base, base]


def losses(run: Path) -> list[tuple[int, str, float]]:
    path = run / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    records = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [(record["step"], record["split"], record["loss"]) for record in records]


def test_a_pipeline_stopped_in_either_stage_ends_bit_identically(pipeline: Path, tmp_path: Path) -> None:
    ended(fullrank(tmp_path, "run", str(pipeline), "--run-dir", "whole"), 0)
    stop_in(fullrank(tmp_path, "run", str(pipeline), "--run-dir", "stopped"), tmp_path / "stopped.1-mlm")
    assert not (tmp_path / "stopped.2-classify").exists()
    stop_in(fullrank(tmp_path, "resume", "stopped"), tmp_path / "stopped.2-classify")
    ended(fullrank(tmp_path, "resume", "stopped"), 0)
    for number, name in enumerate(STAGES, start=1):
        whole, stopped = (tmp_path / f"{base}.{number}-{name}" for base in ("whole", "stopped"))
        assert json.loads((stopped / "status.json").read_text())["attempt"] == 2
        assert len(losses(whole)) > 60
        assert losses(stopped) == losses(whole)
        assert (stopped / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
        assert os.path.getsize(whole / "model/model.safetensors") > 10_000
