"""A micro-batch that not every rank has memory for, under the engines that divide: two real ranks, with a stand-in for the error of a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines import SGD, told, write_experiment, write_strategies
from tests.forked_ranks import fork_ranks
from tests.ranks import TIMEOUT_S, read_records, train

pytestmark = pytest.mark.integration
SHORT = ("train.duration=4 steps", "evaluate.every=4 steps")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    write_experiment(folder)
    write_strategies(folder)
    return folder


@pytest.fixture(scope="module")
def one_process(folder: Path) -> list[dict[str, Any]]:
    return train(folder / "tiny.yaml", folder / "one", *SGD, *SHORT)


def train_short(folder: Path, strategy: str, **lacks: str) -> tuple[Path, list[int | None], list[str]]:
    """Trains on two ranks that lack memory; returns the run, the exit codes and what the ranks printed."""
    run = folder / f"{strategy}-{'-'.join(lacks.values())}"
    words = ["--config", str(folder / "tiny.yaml"), "--run-dir", str(run), *told(folder, strategy), *SGD, *SHORT, "train.micro_batch_size=12"]
    ranks = fork_ranks(words, 2, prepare="tests.short_of_memory:prepare", **lacks)
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    return run, [rank.returncode for rank in ranks], outputs


def assert_same(records: list[dict[str, Any]], reference: list[dict[str, Any]]) -> None:
    for name in ("loss", "gradient_norm"):
        expected = [record[name] for record in reference if record["split"] == "train"]
        assert [record[name] for record in records if record["split"] == "train"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("strategy", ["fsdp2", "zero2"])
def test_all_ranks_take_what_the_poorest_has_room_for_and_train_the_same(strategy: str, folder: Path, one_process: list[dict[str, Any]]) -> None:
    run, codes, outputs = train_short(folder, strategy, TEST_ROOM_MIB="0.4")
    assert codes == [0, 0], "\n".join(outputs)
    size = json.loads((run / "attempts/0001/start.json").read_text())["micro_batch_size"]
    assert size in (2, 3, 4, 6)
    assert f"micro-batch 12 -> {size}: a rank has no memory for the larger" in outputs[0]
    assert_same(read_records(run), one_process)


def test_ranks_that_run_out_of_memory_in_the_first_pass_step_down_together(folder: Path, one_process: list[dict[str, Any]]) -> None:
    run, codes, outputs = train_short(folder, "zero3", TEST_MOST_SAMPLES="4", TEST_SHORT_RANKS="01")
    assert codes == [0, 0], "\n".join(outputs)
    assert json.loads((run / "attempts/0001/start.json").read_text())["micro_batch_size"] == 4
    assert_same(read_records(run), one_process)


def test_a_rank_that_runs_out_of_memory_alone_ends_all_with_the_number_to_go_on_with(folder: Path) -> None:
    run, codes, outputs = train_short(folder, "fsdp2", TEST_MOST_SAMPLES="6", TEST_SHORT_RANKS="1")
    assert codes == [1, 1], "\n".join(outputs)
    assert json.loads((run / "attempts/0001/start.json").read_text())["micro_batch_size"] == 6
    assert "some ranks ran out of memory with micro-batches of 12, and the others wait for them" in outputs[0]
    assert "fullrank resume goes on with 6; or train.micro_batch_size=6" in outputs[0]
