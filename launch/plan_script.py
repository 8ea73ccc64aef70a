"""What somebody's own script adds to a launch: (script, strategy, probe, options) -> ScriptPlan; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.config.errors import ConfigError, Problem
from launch.config.strategy import Strategy
from launch.plan import LaunchPlan, Options, plan_processes
from launch.probe import Probe
from launch.script_file import ScriptFile


@dataclass(frozen=True)
class ScriptPlan(LaunchPlan):
    """The launch of a script, unmodified.

    Args:
        script: its absolute path.
        arguments: its own words of the command line.
        sources: the script and its own modules, which belong to the run's code.
        folder: where it runs, so that its relative paths mean what they meant when it was started first.
    """

    script: Path
    arguments: tuple[str, ...]
    sources: tuple[Path, ...]
    folder: Path


def plan_script(script: ScriptFile, arguments: Sequence[str], folder: Path, strategy: Strategy, probe: Probe, options: Options) -> ScriptPlan:
    """Returns the plan of one attempt. A script that joins no processes is one process, unless more are asked for.

    Raises:
        ConfigError: the strategy, the counts and the machine do not fit together.
    """
    launch = plan_processes(script.name, strategy, probe, options, default_processes=None if script.joins_processes else 1)
    if launch.engine in _NOT_ON_A_CPU and launch.device == "cpu":
        raise ConfigError(Problem(_NOT_ON_A_CPU[launch.engine], strategy.where, fix="--strategy cpu"))
    warnings = launch.warnings
    if launch.world_size > 1 and not script.joins_processes:
        warnings += (
            f"nothing in {script.path.name} joins processes (accelerate, torch.distributed, ...): "
            f"{launch.world_size} processes would train {launch.world_size} separate models, over each other's files",
        )
    return ScriptPlan(
        **(vars(launch) | {"warnings": warnings}), script=script.path, arguments=tuple(arguments), sources=script.sources, folder=folder
    )


_NOT_ON_A_CPU = {
    "fsdp2": "on a CPU Accelerate's FSDP does not shard, and says nothing: a script would train unsharded, or separate models",
    "deepspeed": "on a CPU Accelerate joins no DeepSpeed processes, unless the script itself asks for the gloo backend",
}
"""What a script's own Accelerator() does not do there; fullrank's own training does both."""
