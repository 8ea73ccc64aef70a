"""The stock launchers, for real: each starts every rank of a plan on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
EXPERIMENT = """\
name: tiny
model: {source: .}
task: {kind: text_classification, text: sentence, label: label}
data: {source: .}
train: {duration: 2 epochs, global_batch_size: 32}
optimizer: {lr: 1e-4}
"""


@pytest.mark.integration
@pytest.mark.parametrize("launcher", ["direct", "accelerate", "torchrun", "deepspeed"])
def test_launcher_starts_two_ranks_that_know_their_run(launcher, tmp_path):
    if launcher == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    (tmp_path / "config.json").write_text("{}")  # model.source is this folder
    (tmp_path / "pytorch_model.bin").touch()
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT / 'tests/launch/fake'}:{CHECKOUT}"}
    words = ["run", "./tiny.yaml", "--strategy", "cpu", "--processes-per-node", "2", "--launcher", launcher, "--run-dir", "mine"]
    ended = subprocess.run([sys.executable, "-m", "launch", *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    attempt = tmp_path / "mine" / "attempts" / "0001"
    logs = "".join(path.read_text() for path in sorted(attempt.glob("*.log")))
    arguments = f"--config {tmp_path}/mine/resolved.yaml --strategy {attempt}/accelerate.yaml --run-dir {tmp_path}/mine"
    assert sorted(re.findall(r"started .*", logs)) == [f"started {rank} 2 1 {arguments}" for rank in range(2)]
    assert ended.stdout.splitlines()[0] == "test        loss 0.5000  accuracy 0.8750"


@pytest.mark.integration
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_failure_under_a_stock_launcher_is_exit_code_1(launcher, tmp_path):
    (tmp_path / "tiny.yaml").write_text(EXPERIMENT)
    (tmp_path / "config.json").write_text("{}")  # model.source is this folder
    (tmp_path / "pytorch_model.bin").touch()
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT / 'tests/launch/fake'}:{CHECKOUT}", "FAKE_END": "fail"}
    words = ["run", "./tiny.yaml", "--strategy", "cpu", "--processes-per-node", "2", "--launcher", launcher, "--run-dir", "mine"]
    ended = subprocess.run([sys.executable, "-m", "launch", *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "failed: the launcher" in ended.stderr
