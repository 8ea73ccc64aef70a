"""`fullrank submit --seeds, --grid`: many runs as one array job."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.backends import slurm as backend
from launch.cli.options import default_run_root
from launch.cli.planning import Target, make_plan
from launch.cli.submit import make_job
from launch.config.cluster import LoadedCluster
from launch.config.errors import ConfigError, Problem
from launch.config.load import load_experiment
from launch.config.new_run import new_run_id
from launch.config.strategy import load_strategy
from launch.plan import Options
from launch.plan_experiment import ExperimentPlan, plan_experiment
from launch.probe import ExperimentProbe, Machine
from launch.scheduler.commands import Site
from launch.scheduler.plan import JobOptions
from launch.scheduler.render import render_sbatch
from launch.scheduler.sweeps import combine


@dataclass(frozen=True)
class Many:
    """What an array of runs is made of."""

    target: Target
    seeds: int | None
    grids: tuple[str, ...]
    strategy: str
    nodes: int | None
    processes_per_node: int | None
    launcher: str
    root: Path | None
    machine: Machine

    def plan_all(self, combinations: Sequence[Sequence[str]], runs: Sequence[Path]) -> tuple[list[ExperimentPlan], ExperimentProbe]:
        """Returns the plan of every run, and what was asked for the first; asked again only where a grid changes the model or the data."""
        plans: list[ExperimentPlan] = []
        strategy, probe = load_strategy(self.strategy), None
        asks_each = any(grid.startswith(("model", "data", "task")) for grid in self.grids)
        for own, run in zip(combinations, runs, strict=True):
            overrides = (*self.target.overrides, *own)
            if probe is None or asks_each:
                counts = (self.strategy, self.nodes, self.processes_per_node, self.launcher)
                plan, answers = make_plan(self.target.experiment, overrides, *counts, run, self.root, machine=self.machine)
                probe = probe or answers
            else:
                options = Options(run, 1, self.nodes, self.processes_per_node)
                plan = plan_experiment(load_experiment(self.target.experiment, overrides), strategy, probe, options)
            plans.append(plan)
        assert probe is not None  # there is at least one run
        return plans, probe


def submit_many(
    many: Many,
    loaded: LoadedCluster,
    options: JobOptions,
    site: Site | None,
    host_python: str,
    run_dir: Path | None,
    follow: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Submits seeds and grids as one array job.

    Raises:
        ConfigError: for a script, a chain, the stock form, one run directory or one log to follow, which many runs cannot have.
    """
    unfit = {
        "--script": many.target.script is not None,
        "--chain": options.chain is not None and options.chain > 1,
        "--run-dir": run_dir is not None,
        "--follow": follow,
        "--launcher accelerate": many.launcher != "direct",
    }
    if any(unfit.values()):
        names = ", ".join(name for name, is_there in unfit.items() if is_there)
        raise ConfigError(Problem(f"{names} does not go with --seeds and --grid", fix="leave one of them out"))
    base = load_experiment(many.target.experiment, many.target.overrides).experiment
    combinations = combine(many.seeds, base.seed, many.grids)
    sweep_id = new_run_id()
    root = (many.root or default_run_root()).expanduser().absolute()
    runs = tuple(root / base.name / f"{sweep_id}-{index:04d}" for index in range(len(combinations)))
    plans, probe = many.plan_all(combinations, runs)
    job = make_job(plans[0], probe, loaded, options, host_python, site, runs, root / f"{base.name}-sweeps" / sweep_id)
    if dry_run:
        print(render_sbatch(job), end="")
        return
    submitted = backend.submit_array(job, plans, combinations, probe)
    if as_json:
        print(json.dumps({"sweep": str(job.home), "job_id": submitted.job_ids[0], "runs": [str(run) for run in runs]}, indent=2))
        return
    print(f"job {submitted.job_ids[0]}: {len(runs)} runs  {job.home}")
    print(f"  fullrank status {sweep_id}  (the table of results)", file=sys.stderr)
