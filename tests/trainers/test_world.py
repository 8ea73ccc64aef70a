from __future__ import annotations

import pytest

from launch.config.errors import ConfigError
from trainers.train import told_rank
from trainers.world import World, read_world


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set, but RANK is not"),
        ({"WORLD_SIZE": "abc", "RANK": "0"}, "WORLD_SIZE is 'abc'"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x'"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "2 processes were started"),
    ],
)
def test_half_a_launcher_is_refused_by_the_name_of_its_variable(variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert told_rank() == 0
    with pytest.raises(ConfigError, match=words):
        read_world()


def test_one_process_told_so_is_one_process_under_any_outer_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"OMPI_COMM_WORLD_SIZE": "2", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert read_world() == World()
