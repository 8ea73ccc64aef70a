"""What a resumed run makes of the state it finds: real processes, a real model that learns nothing, so that its first evaluation stays the best."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.forked_ranks import fork_ranks
from tests.ranks import TIMEOUT_S, read_records, train
from tests.tiny import tiny_bert, tiny_sentences

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    values = {
        "name": "still",
        "model": {"source": str(tiny_bert(folder / "bert"))},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32},
        "data": {"source": str(tiny_sentences(folder / "s.tsv", 60)), "splits": {"validation": None}, "validation_fraction": 0.3, "num_workers": 0},
        "train": {"duration": "15 steps", "global_batch_size": 8},
        "optimizer": {"lr": 1e-9},
        "evaluate": {"every": "5 steps", "metric": "accuracy"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }
    path = folder / "still.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_damaged_best_checkpoint_does_not_become_the_model(experiment: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(experiment, run)
    checkpoints = run / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-10", "checkpoint-15", "checkpoint-5"]
    shutil.rmtree(checkpoints / "checkpoint-15")
    weights = checkpoints / "checkpoint-5" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    (rank,) = fork_ranks(["--config", str(experiment), "--run-dir", str(run)], 1)
    output = rank.communicate(timeout=TIMEOUT_S)[0]
    assert rank.returncode == 0, output
    assert "resuming from checkpoint-10" in output
    assert "the best checkpoint, of step 5, is damaged or gone: the last weights (step 15) are the result" in output
    assert (run / "model" / "model.safetensors").read_bytes() == (checkpoints / "checkpoint-15" / "model.safetensors").read_bytes()


def test_a_run_that_stopped_early_trains_no_further_step_when_resumed(experiment: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(experiment, run, "evaluate.early_stopping.patience=1")
    assert read_records(run, "train")[-1]["step"] == 10
    records = train(experiment, run, "evaluate.early_stopping.patience=1")
    assert [record["step"] for record in records if record["split"] == "train"] == list(range(1, 11))
