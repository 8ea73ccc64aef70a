"""Every task of the table in tests/tiny_tasks.py, in real processes: the same on two ranks as on one, and after a stop bit by bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pytest

from tests.ranks import ROOT, clean_environment
from tests.tiny_tasks import TINY_TASKS, write_experiment

pytestmark = pytest.mark.integration

NOT_COMPARED = ("time", "seconds", "attempt", "samples_per_second", "tokens_per_second", "real_token_share")


class Trainer(NamedTuple):
    """A process that has imported torch, and forks the ranks of every row from itself."""

    asks: IO[str]
    answers: IO[str]

    def train_all(self, experiment: Path, folder: Path) -> dict[str, Any]:
        print(json.dumps({"experiment": str(experiment), "folder": str(folder)}), file=self.asks, flush=True)
        answer: dict[str, Any] = json.loads(self.answers.readline())
        return answer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    cache = str(tmp_path_factory.mktemp("cache"))
    environment = clean_environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "FULLRANK_CACHE": cache}
    command = [sys.executable, "-P", str(ROOT / "tests" / "rank_tasks.py")]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Trainer(cast("IO[str]", process.stdin), cast("IO[str]", process.stdout))


@pytest.mark.parametrize("name", TINY_TASKS)
def test_two_ranks_learn_what_one_learns_and_a_stopped_run_goes_on_bit_by_bit(name: str, trainer: Trainer, tmp_path: Path) -> None:
    told = trainer.train_all(write_experiment(name, tmp_path), tmp_path)
    assert "failed" not in told, told["failed"]
    assert told["differences"] == []
    one, two = told["one"], told["two"]
    assert [(record["step"], record["split"]) for record in one] == [(record["step"], record["split"]) for record in two]
    assert {record["split"] for record in one} >= {"train", "validation"}
    if TINY_TASKS[name].same_losses:
        for record, other in zip(one, two, strict=True):
            for key, value in record.items():
                if key not in NOT_COMPARED and isinstance(value, int | float):
                    # A correlation of answers that hardly differ has few digits; one sample judged otherwise would move a metric further.
                    near = {"rel": 1e-4, "abs": 1e-7} if key in ("loss", "gradient_norm") else {"rel": 1e-3, "abs": 1e-3}
                    assert other[key] == pytest.approx(value, **near), (record["split"], record["step"], key)
    text = (tmp_path / "two" / "report.md").read_text(encoding="utf-8")
    assert "## Outcome" in text
    if name in ("ner", "text_classification"):  # a loss a word, a loss a sample
        assert ("| summed loss |" in text, "| loss | true |" in text) == (name == "ner", name != "ner")
