"""Parameters that begin to be trained in the middle of a training, on one rank and on two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.engines import write_strategies
from tests.rank_thawing import OPTIONS, draw
from tests.ranks import ROOT, TIMEOUT_S, start_ranks

pytestmark = pytest.mark.integration


def weights_after_each_step(folder: Path, strategy: str, num_ranks: int) -> list[list[list[float]]]:
    result = folder / f"{strategy}-{num_ranks}.json"
    ranks = start_ranks([str(folder / f"{strategy}.yaml"), str(result)], num_ranks, program=[str(ROOT / "tests" / "rank_thawing.py")])
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * num_ranks, "\n".join(outputs)
    return json.loads(result.read_text())


def weights_of_a_plain_loop() -> list[list[list[float]]]:
    model, samples = draw()
    optimizer, history = torch.optim.AdamW(model.parameters(), **OPTIONS), []
    for step in range(4):
        model[0].requires_grad_(step >= 2)
        optimizer.zero_grad()
        (model(samples).square().sum() / len(samples)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append([parameter.detach().flatten().tolist() for parameter in model.parameters()])
    return history


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_layers_that_thaw_under_two_ranks_move_as_in_a_plain_loop(strategy: str, tmp_path: Path) -> None:
    write_strategies(tmp_path)
    alone = weights_of_a_plain_loop()
    assert alone[0][0] == alone[1][0] != alone[2][0] != alone[3][0]  # the first layer stands still until step 2
    for step, reference in zip(weights_after_each_step(tmp_path, strategy, 2), alone, strict=True):
        for values, expected in zip(step, reference, strict=True):
            assert values == pytest.approx(expected, rel=1e-5)
