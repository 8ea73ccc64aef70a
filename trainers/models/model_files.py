"""How the weights of a run lie in files: those of a checkpoint, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from trainers.checkpoints.restoring import SavedWeights
from trainers.tasks import Task

WEIGHTS = "model.safetensors"


class ModelFiles(Protocol):
    """What writes and reads weights. `module` says of the model what weights do not; its own may be missing."""

    foundation: str | None
    """A short text that two runs share whose checkpoints may rest on each other's unsaved weights; None: every weight is saved."""

    def write(self, module: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes what a checkpoint holds of whole weights. Rank 0 only, perhaps on a thread beside training."""

    def open(self, folder: Path) -> SavedWeights:
        """Returns what `write` wrote."""

    def export(self, module: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes the result of a training in the format of the model's library. Rank 0 only."""


class WholeModel:
    """Every weight, in the format of the model's library, in checkpoints as in the result."""

    foundation: str | None = None

    def __init__(self, task: Task) -> None:
        self._task = task

    def write(self, module: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        self._task.save(module, folder, weights)

    def open(self, folder: Path) -> SavedWeights:
        return SavedWeights(folder / WEIGHTS)

    def export(self, module: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        self._task.save(module, folder, weights)
