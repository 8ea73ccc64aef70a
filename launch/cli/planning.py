"""From what was typed to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launch.cli.options import default_run_root
from launch.config.errors import ConfigError, Problem, suggest
from launch.config.load import load_experiment
from launch.config.run_dir import new_run_id
from launch.config.strategy import load_strategy
from launch.plan import LAUNCHERS, Launcher, Options
from launch.plan_experiment import ExperimentPlan, plan_experiment
from launch.probe import ExperimentProbe, probe_experiment


def make_plan(
    experiment: str,
    overrides: Sequence[str] = (),
    strategy: str = "auto",
    nodes: int | None = None,
    processes_per_node: int | None = None,
    launcher: str = "direct",
    run_dir: Path | None = None,
    run_root: Path | None = None,
    attempt: int = 1,
) -> tuple[ExperimentPlan, ExperimentProbe]:
    """Returns the plan behind a command line, and what the machine answered; writes nothing.

    Raises:
        ConfigError: with every problem of the experiment, or of the strategy, at once.
    """
    loaded = load_experiment(experiment, overrides)
    run_path = (run_dir or (run_root or default_run_root()) / loaded.experiment.name / new_run_id()).expanduser().absolute()
    options = Options(run_path, attempt, nodes, processes_per_node, _parse_launcher(launcher))
    answers = probe_experiment(loaded.experiment, run_path)
    return plan_experiment(loaded, load_strategy(strategy), answers, options), answers


def _parse_launcher(name: str) -> Launcher:
    if name not in LAUNCHERS:
        near = suggest(name, LAUNCHERS)
        what = f"{name!r} is not a launcher" + (f"; did you mean {near!r}?" if near else "")
        raise ConfigError(Problem(what, key="--launcher", allowed=", ".join(LAUNCHERS)))
    return name
