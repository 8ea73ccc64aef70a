"""How long a checkpoint takes: as an earlier run measured it, or by the size of what is saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from launch.config.run_dir import RunDir, read_json
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.sizes.memory import state_bytes

ASSUMED_BYTES_PER_S = 200e6
"""Of a busy network file system, for an estimate that is rather too long."""

_MOST_RUNS = 20


@dataclass(frozen=True)
class SaveTime:
    """Seconds of one save.

    Args:
        is_measured: by a run of the same experiment; else an estimate.
        origin: who says so, for a person.
    """

    seconds: float
    is_measured: bool
    origin: str


def find_save_time(plan: LaunchPlan) -> SaveTime | None:
    """Returns what is known of the saves of a plan's training; None: nothing."""
    root = plan.run.path.parent
    runs = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.name)[-_MOST_RUNS:] if root.is_dir() else []
    return measured_save_time({plan.run.path, *runs}) or estimated_save_time(plan)


def measured_save_time(runs: Iterable[Path]) -> SaveTime | None:
    """Returns the longest save that these runs have measured; None: none has."""
    saves = {str(path.name): ((read_json(RunDir(path).status) or {}).get("checkpoint") or {}).get("seconds") for path in runs}
    known = {name: float(seconds) for name, seconds in saves.items() if isinstance(seconds, (int, float))}
    if not known:
        return None
    slowest = max(known, key=lambda name: known[name])
    return SaveTime(known[slowest], True, f"a save took {known[slowest]:.1f} s in {slowest}")


def estimated_save_time(plan: LaunchPlan) -> SaveTime | None:
    """Returns the time that weights and optimizer take at an assumed speed; None: the size of the model is unknown."""
    size = checkpoint_bytes(plan)
    if size is None:
        return None
    seconds = size / ASSUMED_BYTES_PER_S
    return SaveTime(seconds, False, f"no save was measured yet; {size / 2**30:.1f} GiB at {ASSUMED_BYTES_PER_S / 1e6:.0f} MB/s take {seconds:.0f} s")


def checkpoint_bytes(plan: LaunchPlan) -> int | None:
    """Returns the size of one checkpoint, weights and optimizer in fp32, the same under every strategy; None: the model's size is unknown."""
    if not isinstance(plan, ExperimentPlan) or plan.memory.size is None:
        return None
    size, experiment = plan.memory.size, plan.experiment
    weights = size.trained if experiment.model.lora else size.parameters  # of adapters the frozen rest is not saved
    averaged = size.trained if experiment.train.ema_decay is not None else 0  # beside the average, what training goes on with
    return 4 * (weights + averaged) + state_bytes(experiment.optimizer) * size.trained
