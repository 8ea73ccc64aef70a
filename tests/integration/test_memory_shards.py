"""What two ranks really hold under every strategy, against the estimate that was made without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification

from launch.config.experiment import Optimizer, Precision
from launch.config.strategy import load_strategy
from launch.sizes.memory import Layout, estimate
from launch.sizes.model_size import read_model_size
from tests.engines import STRATEGIES, write_strategies
from tests.ranks import ROOT, TIMEOUT_S, start_ranks

pytestmark = pytest.mark.integration
CASES = [(strategy, precision) for strategy in STRATEGIES for precision in ("fp32", "bf16")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a file for each strategy; parameters of any size are divided."""
    folder = tmp_path_factory.mktemp("memory")
    config = BertConfig(
        vocab_size=4000, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512, max_position_embeddings=64
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    write_strategies(folder)
    return folder


@pytest.fixture(scope="module")
def held(folder: Path) -> dict[str, dict[str, int]]:
    """Bytes that rank 0 of two holds, by STRATEGY:PRECISION; one pair of processes goes through all of them."""
    cases = [f"{folder / strategy}.yaml:{precision}" for strategy, precision in CASES]
    program = [str(ROOT / "tests" / "rank_memory.py")]
    ranks = start_ranks([str(folder), str(folder / "held.json"), *cases], 2, program=program, DS_ACCELERATOR="cpu")
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    return json.loads((folder / "held.json").read_text())


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_each_rank_holds_what_the_estimate_says_within_2_percent(
    name: str, precision: Precision, held: dict[str, dict[str, int]], folder: Path
) -> None:
    strategy = load_strategy(f"{folder / name}.yaml")
    assert strategy.engine is not None
    layout = Layout(strategy.engine, precision, 2, strategy.fsdp, strategy.deepspeed)
    expected = estimate(read_model_size(folder), layout, Optimizer(name="adamw", lr=1e-3), 0)
    found = held[f"{folder / name}.yaml:{precision}"]
    if name.endswith("offload"):
        assert sum(found.values()) == pytest.approx(expected.on_host, rel=0.02)
        return
    assert found == pytest.approx({kind: getattr(expected, kind) for kind in ("parameters", "gradients", "optimizer")}, rel=0.02)
