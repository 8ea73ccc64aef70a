"""The command line, called in this process, over a stand-in for the training."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch.cli import main


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def fullrank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Returns a function that runs `fullrank WORDS` with runs under tmp_path/runs."""
    monkeypatch.setenv("FULLRANK_RUN_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "fake"))
    monkeypatch.setattr("launch.agent.GRACE_S", 0.3)
    monkeypatch.setattr("launch.cli.run.is_login_node", lambda environment: False)  # wherever the tests run

    def call(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["fullrank", *map(str, words)])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capfd.readouterr()
        return Answer(code, out, re.sub(r"\x1b\[[0-9;]*m", "", err))

    return call


@pytest.fixture
def run_path(tmp_path: Path) -> Callable[[], Path]:
    """Returns the only run directory there is."""

    def only() -> Path:
        (path,) = (tmp_path / "runs" / "tiny").iterdir()
        return path

    return only
