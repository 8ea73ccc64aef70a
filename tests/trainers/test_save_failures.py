"""What a library raises when it cannot write is a failed save, whatever its class: told, and the second in a row ends the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from launch.config.errors import FullrankError
from launch.config.experiment import Checkpoint
from launch.config.run_dir import RunDir
from trainers.checkpointing import Checkpoints, Progress
from trainers.engine import Engine
from trainers.world import World


class Fails:
    """A task whose weights cannot be written."""

    def __init__(self, error: Exception) -> None:
        self.num_samples = {"train": 8}
        self._error = error

    def save(self, model: nn.Module, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise self._error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left on device"),
        (ValueError("own code broke"), "ValueError: own code broke"),
    ],
)
@pytest.mark.parametrize("background", [True, False])
def test_any_error_of_a_save_is_told_and_the_second_in_a_row_ends_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, words: str, background: bool
) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    task: Any = Fails(error)
    checkpoints = Checkpoints(RunDir(tmp_path), Checkpoint(background=background), Engine(World(), None, "fp32"), task, {"seed": 1})
    checkpoints.save(model, optimizer, schedule, Progress(step=1))
    checkpoints.wait()
    assert f"a checkpoint could not be written: {words}" in capsys.readouterr().err
    with pytest.raises(FullrankError, match=words):
        _save_and_wait(checkpoints, model, optimizer, schedule)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def _save_and_wait(checkpoints: Checkpoints, model: nn.Module, optimizer: Any, schedule: Any) -> None:
    checkpoints.save(model, optimizer, schedule, Progress(step=2))
    checkpoints.wait()
