"""One batch overfitted, steps profiled: real trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.ranks import read_records, train
from tests.tiny import tiny_bert, tiny_sentences

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    values = {
        "name": "tiny",
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.0},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32},
        "data": {"source": str(tiny_sentences(folder / "s.tsv", 64)), "splits": {"validation": None}, "validation_fraction": 0.25, "num_workers": 0},
        "train": {"duration": "4 steps", "global_batch_size": 16},
        "optimizer": {"lr": 3e-3},
        "evaluate": {"metric": "accuracy"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def test_one_batch_is_overfitted_and_leaves_no_model(experiment, tmp_path):
    records = train(experiment, tmp_path / "run", "--overfit-batch", "train.duration=300 steps", "schedule.name=constant")
    losses = [record["loss"] for record in records]
    assert losses[-1] <= 0.02 * losses[0]
    assert len(losses) < 300
    assert (status(tmp_path / "run")["state"], (tmp_path / "run" / "model").exists()) == ("completed", False)
    assert status(tmp_path / "run")["verdict"].startswith("overfit: yes. The loss of one batch of 16 went from 0.")
    assert status(tmp_path / "run")["overfits_batch"]
    assert {record["epoch"] for record in records} == {round(1 / 3, 4)}
    report = (tmp_path / "run" / "report.md").read_text()
    assert "on one batch of 16 samples of " in report
    assert f"Completed at step {len(losses)}, after " in report


def test_batch_that_is_not_learned_is_exit_code_1(experiment, tmp_path):
    train(experiment, tmp_path / "run", "--overfit-batch", "optimizer.lr=1e-9", exit_code=1)
    report = json.loads((tmp_path / "run" / "attempts" / "0001" / "failures" / "rank_00000.json").read_text())
    assert report["message"].startswith("--overfit-batch: overfit: no. The loss of one batch went from 0.")
    assert (status(tmp_path / "run")["step"], report["step"]) == (4, 4)
    assert status(tmp_path / "run")["verdict"].startswith("overfit: no. ")


def test_profiled_steps_leave_a_trace_a_rank_and_a_table(experiment, tmp_path):
    train(experiment, tmp_path / "run", "--profile-steps", "2:3", "--debug", num_processes=2)
    profile = tmp_path / "run" / "profile"
    assert sorted(path.name for path in profile.iterdir()) == ["steps.md", "trace_rank_00000.json", "trace_rank_00001.json"]
    names = [event.get("name") for event in json.loads((profile / "trace_rank_00001.json").read_text())["traceEvents"]]
    assert [names.count(f"fullrank: {phase}") for phase in ("waiting for data", "forward", "backward", "optimizer")] == [2, 2, 2, 2]
    text = (profile / "steps.md").read_text()
    assert text.startswith("# Where the time of steps 2 to 3 went (rank 0)\n\n| phase ")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert rows[:5] == ["waiting for data", "counting and stop requests", "forward", "backward", "optimizer"]
    assert rows[-2:] == ["a step", "(collectives, inside the above)"]
    assert len(read_records(tmp_path / "run", "train")) == 4
