"""Seeds and grids become runs."""

from __future__ import annotations

import pytest

from launch.config.errors import ConfigError
from launch.scheduler.sweeps import combine


def test_every_value_with_every_seed():
    assert combine(2, 5, ["optimizer.lr=1e-5,3e-5"]) == [
        ("optimizer.lr=1e-5", "seed=5"),
        ("optimizer.lr=1e-5", "seed=6"),
        ("optimizer.lr=3e-5", "seed=5"),
        ("optimizer.lr=3e-5", "seed=6"),
    ]


def test_commas_inside_brackets_belong_to_the_value():
    assert combine(None, 0, ["model.freeze=[a,b],[]"]) == [("model.freeze=[a,b]",), ("model.freeze=[]",)]


@pytest.mark.parametrize("grid", ["lr", "=1,2", "lr=1,,2", "lr="])
def test_a_grid_without_values_is_refused(grid):
    with pytest.raises(ConfigError, match="KEY=VALUE,VALUE"):
        combine(None, 0, [grid])


def test_a_key_twice_is_refused():
    with pytest.raises(ConfigError, match="seed stands twice"):
        combine(2, 0, ["seed=1,2"])
