"""One cluster for all tests of this folder, a tiny experiment that every node sees, and ways to type `fullrank`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import cluster as clusters
from tests.cluster.cluster import Cluster
from tests.cluster.packages import why_not
from tests.ranks import ROOT, clean_environment, train
from tests.slurm_runs import ALIVE, PATIENCE_S, last_step, logs_of, losses
from tests.tiny import tiny_bert, tiny_sentences


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that is up (make cluster), or a new one."""
    reason = why_not()
    if reason:
        pytest.skip(f"no Slurm here: {reason}")
    found = clusters.running()
    if found:
        yield found
        return
    yield clusters.boot()
    clusters.take_down()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, its data, the experiment and a cluster file; every node sees it."""
    folder = tmp_path_factory.mktemp("slurm")
    tiny_bert(folder / "bert")
    tiny_sentences(folder / "train.tsv", 96)
    tiny_sentences(folder / "valid.tsv", 24, seed=1)
    (folder / "tiny.yaml").write_text(
        f"""\
name: tiny
seed: 1
model: {{source: {folder}/bert}}
task: {{kind: text_classification, text: text, label: label, max_length: 16}}
data: {{source: {folder}, format: tsv, splits: {{train: train.tsv, validation: valid.tsv}}, num_workers: 0}}
train: {{duration: 12 steps, global_batch_size: 12, precision: fp32}}
model_dropout: null
optimizer: {{lr: 1.0e-3}}
tracking: {{log_every: 1 step, wandb: {{mode: disabled}}}}
""".replace("model_dropout: null\n", "").replace("/bert}", "/bert, dropout: 0.0}")
    )
    (folder / "site.yaml").write_text(
        f"partition: main\ncpus_per_node: 2\ntime_limit: '00:10:00'\nrun_root: {folder}/runs\nenvironment: {{OMP_NUM_THREADS: '1'}}\n"
    )
    return folder


@pytest.fixture
def fullrank(cluster: Cluster, shared: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function that types `fullrank WORDS` on the login node."""
    environment = (
        clean_environment() | cluster.environment | {"PYTHONPATH": str(ROOT), "FULLRANK_RUN_ROOT": str(shared / "runs"), "HF_HUB_OFFLINE": "1"}
    )

    def call(*words: str, code: int | None = 0, timeout_s: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "launch", *words], cwd=shared, env=environment | variables, capture_output=True, text=True, timeout=timeout_s
        )
        assert code in (None, ended.returncode), ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended

    return call


@pytest.fixture
def submit(cluster: Cluster, fullrank, shared: Path) -> Iterator[Callable[..., Path]]:
    """Returns a function that submits the tiny experiment and returns its run directory."""

    def send(*words: str) -> Path:
        answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--json", *words)
        return Path(json.loads(answer.stdout)["run"])

    yield send
    cluster.command("scancel", "--user", "root")  # what a failed test has left


@pytest.fixture
def until(fullrank) -> Callable[..., dict[str, Any]]:
    """Returns a function that waits until a run is in one of some states, by `fullrank status`."""

    def wait(run: Path, *states: str, step: int = 0) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            state = json.loads((run / "status.json").read_text())["state"]
            if (state in states and last_step(run) >= step) or state not in ALIVE:
                status: dict[str, Any] = json.loads(fullrank("status", str(run), "--json").stdout)
                if status["state"] in states:
                    return status
                assert status["state"] in ALIVE, f"{status}\n{logs_of(run)}"
            time.sleep(0.2)
        raise AssertionError(f"not {states} within {PATIENCE_S} s\n{logs_of(run)}")

    return wait


@pytest.fixture(scope="session")
def local_losses(shared: Path) -> dict[int, float]:
    """What one process here makes of the experiment."""
    train(shared / "tiny.yaml", shared / "local")
    return losses(shared / "local")


@pytest.fixture(scope="session")
def undisturbed() -> dict[str, Path]:
    """The run that others are compared with, made by the first test that needs it."""
    return {}
