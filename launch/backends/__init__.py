"""Where a plan is carried out, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launch.backends import local
from launch.backends.local import Ended
from launch.plan import LaunchPlan
from launch.probe import Probe


@dataclass(frozen=True)
class Backend:
    """The two things a backend does with a plan: start a run, or the next attempt of one."""

    start: Callable[[LaunchPlan, Probe], Ended]
    resume: Callable[[LaunchPlan, Probe], Ended]


BACKENDS: dict[str, Backend] = {"local": Backend(local.start, local.resume)}
