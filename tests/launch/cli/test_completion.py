"""What a shell offers after a Tab: its own protocol, as bash speaks it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.ranks import ROOT, clean_environment

FULLRANK = "import sys; from launch.cli import main; sys.argv = ['fullrank']; main()"


def offered(*words: str) -> list[str]:
    """Returns what the shell offers behind `fullrank WORDS` for the last of them."""
    said = {"_FULLRANK_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["fullrank", *words]), "COMP_CWORD": str(len(words))}
    environment = clean_environment() | said | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-P", "-c", FULLRANK], env=environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_tab_after_an_experiment_offers_keys(verb):
    assert offered(verb, "bert_sst2", "optimizer.l") == ["optimizer.lr=", "optimizer.layer_decay="]


def test_tab_offers_the_keys_of_the_experiments_own_task():
    assert offered("run", "bert_sst2", "task.max_l") == ["task.max_length="]
    assert offered("run", "image_folder", "task.max_l") == []
    assert "task.max_length=" in offered("run", "not_there_yet", "task.max_l")


def test_tab_offers_experiments_and_strategies():
    assert "bert_sst2" in offered("run", "bert_s")
    assert offered("run", "bert_sst2", "--strategy", "zero3") == ["zero3", "zero3_offload"]


def test_tab_offers_runs_of_experiments_and_those_that_a_person_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("runs/named", "runs/tiny/20260101-000000-aaaaaa"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "status.json").touch()
    assert sorted(offered("status", "")) == ["20260101-000000-aaaaaa", "latest", "named"]
