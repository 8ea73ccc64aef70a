"""Ways to run an experiment (or a script) other than to the end: debugging, one batch, a profile; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from launch.config.errors import ConfigError, Problem

MOST_PROFILED_STEPS = 100
"""A trace of more steps is too large for the viewers; ten are plenty."""

_DEBUG_OVERRIDES = ("data.num_workers=0", "data.limit=64", "checkpoint.background=false", "tracking.wandb.mode=disabled")
_OVERFIT_OVERRIDES = (
    "train.duration=300 steps",
    "train.label_smoothing=0",
    "model.dropout=0",
    "optimizer.weight_decay=0",
    "schedule.name=constant",
    "schedule.warmup=null",
    "data.num_workers=0",
    "tracking.wandb.mode=disabled",
)
"""What keeps a loss from going to 0, or only takes time."""


@dataclass(frozen=True)
class Mode:
    """What a run is for, if not for its result.

    Args:
        is_debug: one process on the terminal, few samples, anomaly detection.
        overfits_batch: trains on one batch until its loss is gone, and says whether it is.
        profiled_steps: first and last optimizer step to profile, counted from 1.
    """

    is_debug: bool = False
    overfits_batch: bool = False
    profiled_steps: tuple[int, int] | None = None

    def overrides(self, own: Sequence[str]) -> tuple[str, ...]:
        """Returns what the mode sets in an experiment, before the person's own overrides; what they set themselves stays."""
        wanted = (*(_DEBUG_OVERRIDES if self.is_debug else ()), *(_OVERFIT_OVERRIDES if self.overfits_batch else ()))
        said = {override.partition("=")[0] for override in own}
        return (*dict.fromkeys(override for override in wanted if override.partition("=")[0] not in said), *own)

    def training_arguments(self) -> tuple[str, ...]:
        """Returns what train.py is told."""
        steps = self.profiled_steps
        return (
            *(["--debug"] if self.is_debug else []),
            *(["--overfit-batch"] if self.overfits_batch else []),
            *(["--profile-steps", f"{steps[0]}:{steps[1]}"] if steps else []),
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


PLAIN = Mode()


def parse_mode(is_debug: bool, overfits_batch: bool, profile_steps: str | None, is_script: bool) -> Mode:
    """Returns the mode that the command line asks for.

    Raises:
        ConfigError: it asks for what does not go together, or for steps that are none.
    """
    asked = [name for name, is_asked in (("--overfit-batch", overfits_batch), ("--profile-steps", profile_steps is not None)) if is_asked]
    if is_script and asked:
        raise ConfigError(Problem("needs an experiment: a script's loop is its own", key=asked[0], fix="--debug works for scripts too"))
    if len(asked) == 2:
        raise ConfigError(Problem("cannot both be asked for", key=" and ".join(asked), fix="one after the other"))
    return Mode(is_debug, overfits_batch, parse_steps(profile_steps) if profile_steps is not None else None)


def parse_steps(text: str) -> tuple[int, int]:
    """Returns the first and the last step of e.g. `10:15`.

    Raises:
        ConfigError: it is no such range.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last < first + MOST_PROFILED_STEPS:
        why = "is not FIRST:LAST" if not match else "counts from 1" if first < 1 else "ends before it begins" if last < first else "is too long"
        allowed = f"two optimizer steps, e.g. 10:15; at most {MOST_PROFILED_STEPS} of them"
        fix = f"--profile-steps {last}:{first}" if match and 1 <= last < first else "--profile-steps 10:15"
        raise ConfigError(Problem(f"{text!r} {why}", key="--profile-steps", allowed=allowed, fix=fix))
    return first, last


def check_steps(steps: tuple[int, int], total_steps: int, steps_done: int = 0) -> None:
    """Refuses steps that the training does not make.

    Raises:
        ConfigError: says which it makes.
    """
    if steps[0] <= steps_done or steps[1] > total_steps:
        what = f"the training makes steps {steps_done + 1} to {total_steps}, and {steps[0]}:{steps[1]} is not among them"
        raise ConfigError(Problem(what, key="--profile-steps", fix="--profile-steps FIRST:LAST within them, or a longer train.duration"))
