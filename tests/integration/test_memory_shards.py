"""What two ranks really hold under the strategies that divide, against the estimate that was made without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification

from launch.config.experiment import Optimizer
from launch.config.strategy import load_strategy
from launch.memory import Layout, estimate
from launch.model_size import read_model_size
from tests.ranks import ROOT, TIMEOUT_S, start_ranks

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    config = BertConfig(
        vocab_size=4000, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512, max_position_embeddings=64
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def held_by_rank_0(strategy: str, model: Path, result: Path) -> dict[str, int | None]:
    ranks = start_ranks([strategy, str(model), str(result)], 2, program=[str(ROOT / "tests" / "rank_memory.py")], DS_ACCELERATOR="cpu")
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    return json.loads(result.read_text())


@pytest.mark.parametrize("name", ["fsdp2", "zero2", "zero3"])
def test_each_rank_holds_what_the_estimate_says_within_2_percent(name, model, tmp_path):
    if name.startswith("zero"):
        config = {"stage": int(name[-1]), "reduce_bucket_size": 100_000, "allgather_bucket_size": 100_000, "stage3_param_persistence_threshold": 0}
        (tmp_path / f"{name}.json").write_text(json.dumps({"zero_optimization": config}))
        name = str(tmp_path / f"{name}.json")
    strategy = load_strategy(name)
    held = held_by_rank_0(name, model, tmp_path / "held.json")
    layout = Layout(strategy.engine, "fp32", 2, strategy.fsdp, strategy.deepspeed)
    expected = estimate(read_model_size(model), layout, Optimizer(name="adamw", lr=1e-3), 0)
    assert held["optimizer"] == pytest.approx(expected.optimizer, rel=0.02)
    assert held["parameters"] == pytest.approx(expected.parameters, rel=0.02)
    if held["gradients"] is not None:
        assert held["gradients"] == pytest.approx(expected.gradients, rel=0.02)
