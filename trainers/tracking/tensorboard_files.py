"""Writes TensorBoard's files, from the records that metrics.jsonl has accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from launch.config.errors import ConfigError, Problem, install_words
from launch.config.metrics import NOT_METRICS, Record


class TensorBoard:
    """TensorBoard files in <run>/tensorboard, one chart a metric with the splits side by side.

    A resumed run goes on in the same folder.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            problem = Problem(
                "TensorBoard is not installed", key="tracking.tensorboard", fix=f"{install_words('tensorboard')}, or tracking.tensorboard=false"
            )
            raise ConfigError(problem) from error
        self._there = read_points(folder)
        self._writer = SummaryWriter(folder)

    def catch_up(self, records: Iterable[Record]) -> None:
        """Writes what is missing of earlier attempts: a kill takes what was in TensorBoard's queue, up to two minutes of it."""
        for record in records:
            self._write(record, self._there)

    def log(self, record: Mapping[str, Any]) -> None:
        self._write(record, frozenset())

    def close(self, exit_code: int) -> None:
        self._writer.close()

    def _write(self, record: Mapping[str, Any], there: frozenset[tuple[str, int]]) -> None:
        for key, value in record.items():
            tag = f"{key}/{record['split']}"
            if key not in NOT_METRICS and isinstance(value, int | float) and (tag, record["step"]) not in there:
                self._writer.add_scalar(tag, value, record["step"], walltime=record["time"])


def read_points(folder: Path) -> frozenset[tuple[str, int]]:
    """Returns (tag, step) of every number in a folder's event files, up to a torn end; none if there is no folder."""
    if not folder.is_dir():
        return frozenset()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points = set()
    for path in sorted(folder.glob("events.out.tfevents.*")):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            points |= {(tag, event.step) for event in events.Scalars(tag)}
    return frozenset(points)
