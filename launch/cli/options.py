"""The arguments that several verbs share, described once."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.config.errors import ConfigError, FullrankError, Problem, StateError
from launch.config.pipeline_dir import find_base, stage_runs
from launch.config.run_dir import RunDir, find_run
from launch.launchers import LAUNCHERS

if TYPE_CHECKING:
    from launch.config.cluster import LoadedCluster


def complete_experiment(incomplete: str) -> list[str]:
    """Returns the shipped experiments that begin so."""
    return sorted([*_shipped("experiments", incomplete), *_shipped("pipelines", incomplete)])


def complete_strategy(incomplete: str) -> list[str]:
    """Returns auto and the shipped strategies that begin so."""
    return [name for name in ["auto", *_shipped("accelerate", "")] if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Returns the runs under the default run root that begin so."""
    names = ["latest", *(path.parent.name for folders in ("*", "*/*") for path in default_run_root().glob(f"{folders}/status.json"))]
    return sorted(name for name in names if name.startswith(incomplete))


def complete_launcher(incomplete: str) -> list[str]:
    """Returns the launchers that begin so."""
    return [name for name in LAUNCHERS if name.startswith(incomplete)]


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the keys that begin so, each with its `=`; of a task's keys those of the experiment's kind, where that is known."""
    from launch.config.experiment import Experiment
    from launch.config.known_keys import dotted_keys
    from launch.config.load import load_experiment

    keys = list(dict.fromkeys(dotted_keys(Experiment)))
    with suppress(FullrankError):
        task = load_experiment(str(context.params.get("experiment"))).experiment.task
        keys = [*(key for key in keys if not key.startswith("task.")), *dotted_keys(type(task), "task.")]
    blocks = {key.rpartition(".")[0] for key in keys}
    return [f"{key}=" for key in keys if key.startswith(incomplete) and key not in blocks]


def default_run_root() -> Path:
    """Returns FULLRANK_RUN_ROOT, or ./runs."""
    return Path(os.environ.get("FULLRANK_RUN_ROOT") or "runs").expanduser()


def chosen_run(name: str, run_root: Path | None) -> RunDir:
    """Returns the run that was named.

    Raises:
        StateError: none or several are called so, or it is a pipeline.
    """
    root = run_root or default_run_root()
    try:
        return find_run(name, root)
    except StateError:
        base = find_base(name, root)
        if base is None:
            raise
        stages = ", ".join(str(run.path) for run in stage_runs(base)) or "none has begun"
        problem = Problem("is a pipeline, and its stages are runs", str(base), allowed=stages, fix=f"fullrank status {base}")
        raise StateError(problem) from None


def complete_cluster(incomplete: str) -> list[str]:
    """Returns the cluster files that begin so."""
    from launch.config.cluster import cluster_names

    return [name for name in cluster_names() if name.startswith(incomplete)]


def chosen_cluster(name: str | None) -> LoadedCluster:
    """Returns the cluster that was named, FULLRANK_CLUSTER's, or the only file a person has.

    Raises:
        ConfigError: none, or several.
    """
    from launch.config.cluster import OWN_CLUSTERS, load_cluster

    own = sorted(OWN_CLUSTERS.expanduser().glob("*.yaml"))
    name = name or os.environ.get("FULLRANK_CLUSTER") or (own[0].stem if len(own) == 1 else None)
    if name is None:
        what = f"{len(own)} cluster files: which one?" if own else "no cluster file says what to ask Slurm for"
        raise ConfigError(
            Problem(
                what,
                key="--cluster",
                allowed=", ".join(path.stem for path in own) or None,
                fix="--cluster NAME" if own else "fullrank cluster init mysite (on the login node)",
            )
        )
    return load_cluster(name)


def _shipped(kind: str, incomplete: str) -> list[str]:
    from launch.config.load import shipped_configs

    return sorted(path.stem for path in (shipped_configs() / kind).glob("*.yaml") if path.stem.startswith(incomplete))


ExperimentName = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="A shipped experiment or pipeline, or the path of a file of one (with a / or ending in .yaml).",
        autocompletion=complete_experiment,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values that replace the experiment's, e.g. optimizer.lr=3e-5.", autocompletion=complete_override),
]
ScriptPath = Annotated[
    Path | None,
    typer.Option("--script", metavar="FILE", help="Any Python script instead of an experiment; its own arguments stand behind --."),
]
StrategyName = Annotated[
    str,
    typer.Option(
        "--strategy",
        metavar="NAME|FILE",
        help="How the processes work together: auto, a shipped strategy, or an Accelerate file.",
        autocompletion=complete_strategy,
    ),
]
ClusterName = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME|FILE",
        help="Slurm site: a file of yours (~/.config/fullrank/clusters), or a path. Default: $FULLRANK_CLUSTER, or your only one.",
        autocompletion=complete_cluster,
    ),
]
Nodes = Annotated[int | None, typer.Option(min=1, metavar="N", help="Machines.")]
ProcessesPerNode = Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes on each machine.")]
LauncherName = Annotated[
    str, typer.Option("--launcher", metavar="|".join(LAUNCHERS), help="What starts the processes.", autocompletion=complete_launcher)
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="One process on this terminal (breakpoint() works), 64 samples, no data workers, anomaly detection, all tracebacks."
    ),
]
OverfitBatch = Annotated[
    bool, typer.Option("--overfit-batch", help="Train on one batch until its loss is gone, and say whether it is: exit code 0, or 1 if it is not.")
]
ProfileSteps = Annotated[
    str | None,
    typer.Option("--profile-steps", metavar="FIRST:LAST", help="Write a profiler trace of these optimizer steps, and where their time went."),
]
RunDirectory = Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="The run directory. Default: a new one under the run root.")]
RunRoot = Annotated[Path | None, typer.Option("--run-root", metavar="DIR", help="The folder of all runs. Default: $FULLRANK_RUN_ROOT, or ./runs.")]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, a run id (its beginning will do), or latest.", autocompletion=complete_run)
]
Json = Annotated[bool, typer.Option("--json", help="Print facts for programs.")]
