"""What can be known to go wrong before anything is started: tables of small checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from launch.config.errors import ConfigError, PreflightError, Problem, install_words
from launch.config.load import LoadedExperiment
from launch.config.sources import HubName
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.precision import FP8_PACKAGES
from launch.probe import TRAINING_PACKAGES, ExperimentProbe, Probe
from launch.sizes.memory_fixes import find_memory_fixes
from launch.sizes.model_size import UnknownSize

Check = Callable[[LaunchPlan, Probe], list[Problem]]
FileCheck = Callable[[LoadedExperiment, ExperimentProbe], list[Problem]]
ExperimentCheck = Callable[[ExperimentPlan, ExperimentProbe], list[Problem]]

_SMALLEST_FREE_BYTES = {"experiment": 2**30, "script": 2**24}
"""Room for the checkpoints and the model of a small network (a real estimate needs the model's size); for the logs of a script, which
writes nobody knows what."""


@dataclass(frozen=True)
class Result:
    """What one check found.

    Args:
        is_input: whether its problems lie in what the person asked for (exit code 2), or in the machine (3).
        fine: says what was looked at, where WHEN_FINE does not.
    """

    name: str
    problems: tuple[Problem, ...]
    is_input: bool
    fine: str | None = None

    @property
    def when_fine(self) -> str:
        """Says what was looked at."""
        return self.fine or WHEN_FINE.get(self.name, "nothing wrong")


def preflight(plan: LaunchPlan, probe: Probe) -> None:
    """Runs every check.

    Raises:
        ConfigError, PreflightError: with every problem at once; a ConfigError if any of them lies in what was asked for.
    """
    results = run_checks(plan, probe)
    problems = [problem for result in results for problem in result.problems]
    if any(result.is_input and result.problems for result in results):
        raise ConfigError(*problems)
    if problems:
        raise PreflightError(*problems)


def run_checks(plan: LaunchPlan, probe: Probe) -> list[Result]:
    """Returns what each check found: first those of what was asked for, then those of the machine."""
    inputs = {name: check(plan, probe) for name, check in INPUT_CHECKS.items()}
    machine = {name: check(plan, probe) for name, check in MACHINE_CHECKS.items()}
    if isinstance(plan, ExperimentPlan) and isinstance(probe, ExperimentProbe):
        inputs |= {name: check(plan.loaded, probe) for name, check in FILE_CHECKS.items()}
        inputs |= {name: check(plan, probe) for name, check in EXPERIMENT_INPUT_CHECKS.items()}
        machine |= {name: check(plan, probe) for name, check in EXPERIMENT_MACHINE_CHECKS.items()}
    return [Result(name, tuple(found), is_input) for results, is_input in ((inputs, True), (machine, False)) for name, found in results.items()]


def file_problems(loaded: LoadedExperiment, probe: ExperimentProbe) -> list[Problem]:
    """Returns what is wrong with the files that an experiment names, whatever else is wrong with it."""
    return [problem for check in FILE_CHECKS.values() for problem in check(loaded, probe)]


def check_nodes(plan: LaunchPlan, probe: Probe) -> list[Problem]:
    if plan.nodes == 1:
        return []
    return [
        Problem(
            f"{plan.nodes} nodes cannot be started from here",
            key="--nodes",
            allowed="1",
            fix="--processes-per-node N for several processes on this machine",
        )
    ]


def check_packages(plan: ExperimentPlan, probe: ExperimentProbe) -> list[Problem]:
    missing = [name for name in TRAINING_PACKAGES if name not in probe.versions]
    problems = []
    if missing:
        problems.append(Problem(f"{', '.join(missing)} not installed in {probe.machine.python}", fix=install_words("train")))
    if plan.experiment.tracking.wandb.mode in ("online", "offline") and "wandb" not in probe.versions:
        problems.append(
            plan.loaded.problem("tracking.wandb.mode", "wandb is not installed", fix=f"{install_words('train')}, or tracking.wandb.mode=disabled")
        )
    return problems


def check_launcher(plan: LaunchPlan, probe: Probe) -> list[Problem]:
    package = {"accelerate": "accelerate", "torchrun": "torch", "deepspeed": "deepspeed"}.get(plan.launcher)
    if package is None or package in probe.versions:
        return []
    return [Problem(f"{package} is not installed in {probe.machine.python}", key="--launcher", fix=f"pip install {package}, or --launcher direct")]


def check_engine(plan: LaunchPlan, probe: Probe) -> list[Problem]:
    """What the engine imports is there."""
    problems = []
    if plan.engine == "deepspeed" and plan.launcher != "deepspeed" and "deepspeed" not in probe.versions:
        what = f"the strategy {plan.strategy.name} needs DeepSpeed, which is not installed in {probe.machine.python}"
        problems.append(Problem(what, plan.strategy.where, fix=f"{install_words('deepspeed')}, or --strategy fsdp2"))
    if plan.precision == "fp8" and not any(name in probe.versions for name in FP8_PACKAGES):
        what = f"fp8 needs {' or '.join(FP8_PACKAGES)}, and neither is installed in {probe.machine.python}"
        problems.append(Problem(what, key="train.precision", fix="pip install torchao, or train.precision=bf16"))
    return problems


def check_offload(plan: LaunchPlan, probe: Probe) -> list[Problem]:
    """Offloading from a CPU to a CPU would only look as if it did something."""
    if plan.device != "cpu" or plan.strategy.fsdp is None or not plan.strategy.fsdp.offload:
        return []
    return [Problem("fsdp_offload_params has no effect on a CPU: everything is in host memory already", plan.strategy.where, fix="--strategy fsdp2")]


def check_paths(loaded: LoadedExperiment, probe: ExperimentProbe) -> list[Problem]:
    may_be_null = ("data.splits.validation", "data.splits.test")
    return [
        loaded.problem(
            key, f"there is no {path}{_meant(key, probe)}", fix="check the path" + (f"; {key}=null for none" if key in may_be_null else "")
        )
        for key, path in probe.missing_paths.items()
    ]


def check_code_files(loaded: LoadedExperiment, probe: ExperimentProbe) -> list[Problem]:
    return [replace(problem, where=problem.where or loaded.problem(problem.key or "", "").where) for problem in probe.missing_code]


def check_sources(loaded: LoadedExperiment, probe: ExperimentProbe) -> list[Problem]:
    return [replace(problem, where=problem.where or loaded.problem(problem.key or "", "").where) for problem in probe.unfit_sources]


def check_size(loaded: LoadedExperiment, probe: ExperimentProbe) -> list[Problem]:
    """What the experiment says of the model's layers can be, by the names in its files."""
    size = probe.size
    return [loaded.problem(size.key, size.reason, fix=size.fix or f"{size.key}=[...]")] if isinstance(size, UnknownSize) and size.key else []


def check_hub_cache(plan: ExperimentPlan, probe: ExperimentProbe) -> list[Problem]:
    if not probe.is_offline:
        return []
    return [
        plan.loaded.problem(
            key,
            f"{name} is no folder here{_meant(key, probe)} and not in the hub cache, and the hub is switched off (HF_HUB_OFFLINE)",
            fix=f"{key}=./the-right-folder, or unset HF_HUB_OFFLINE",
        )
        for key, name in _uncached(probe).items()
    ]


def check_weights(plan: ExperimentPlan, probe: ExperimentProbe) -> list[Problem]:
    if probe.unreachable_weights is None:
        return []
    what = f"its weights are not in torch's cache, and {probe.unreachable_weights} does not answer"
    fix = "fullrank fetch where there is a network, with TORCH_HOME on a shared disk; or weights=null for random ones, or model.weights=FILE"
    return [plan.loaded.problem("model.source", what, fix=fix)]


def check_hub(plan: ExperimentPlan, probe: ExperimentProbe) -> list[Problem]:
    if probe.unreachable_hub is None:
        return []
    return [
        plan.loaded.problem(
            key,
            f"{name} is no folder here{_meant(key, probe)} and not in the hub cache, and {probe.unreachable_hub} does not answer",
            fix=f"{key}=./the-right-folder; or fullrank fetch where there is a network, with HF_HOME and FULLRANK_CACHE on a shared disk",
        )
        for key, name in _uncached(probe).items()
    ]


def _meant(key: str, probe: ExperimentProbe) -> str:
    """Returns what there is of a similar name, in words."""
    return f" (did you mean {probe.near_paths[key]}?)" if key in probe.near_paths else ""


def _uncached(probe: ExperimentProbe) -> dict[str, str]:
    """Returns the hub names that would have to be fetched, by the key that names them."""
    sources = {"model.source": probe.model, "data.source": probe.data, **probe.others}
    named = {key: source.name for key, source in sources.items() if isinstance(source, HubName)}
    return {key: name for key, name in named.items() if key not in probe.hub_cached}


def check_devices(plan: LaunchPlan, probe: Probe) -> list[Problem]:
    num_gpus, where = probe.machine.num_gpus, plan.strategy.where
    if plan.device == "cpu":
        return []
    if not num_gpus:
        what = f"the strategy {plan.strategy.name} is for GPUs, and {probe.machine.host} has none"
        return [Problem(what, where, fix="--strategy cpu (with --processes-per-node N for several processes)")]
    if plan.processes_per_node > num_gpus:
        return [
            Problem(
                f"{plan.processes_per_node} processes for {num_gpus} GPU{'s' if num_gpus > 1 else ''}",
                where,
                "--processes-per-node",
                allowed=f"at most {num_gpus}",
            )
        ]
    return []


def check_run_dir(plan: LaunchPlan, probe: Probe) -> list[Problem]:
    place = probe.place
    if plan.attempt.number == 1 and place.exists and not place.is_empty:
        fix = f"another --run-dir; or go on with it: fullrank resume {place.path}"
        return [Problem("the run directory exists and is not empty", str(place.path), fix=fix)]
    if not place.is_writable:
        return [Problem("cannot be written to", str(place.path), fix="--run-root or --run-dir in a place you can write to")]
    return []


def check_memory(plan: ExperimentPlan, probe: ExperimentProbe) -> list[Problem]:
    """What a rank will hold fits into its device, as far as both are known."""
    memory, budget = plan.memory.memory, plan.memory.budget
    if not plan.memory.is_refused or memory is None or budget is None:
        return []
    fixes = [*find_memory_fixes(plan, probe.machine), "train.memory_check=warn, to try it all the same"]
    what = f"a rank would hold {memory.total / 2**30:.1f} GiB, and has {max(budget.bytes, 0) / 2**30:.1f} ({budget.what})"
    return [plan.loaded.problem("train.micro_batch_size", what, fix="; or ".join(fixes))]


def check_room(plan: LaunchPlan, probe: Probe) -> list[Problem]:
    place, least = probe.place, _SMALLEST_FREE_BYTES["experiment" if isinstance(plan, ExperimentPlan) else "script"]
    if place.free_bytes is None or place.free_bytes >= least:
        return []
    what = f"only {place.free_bytes / 2**20:.0f} MiB free for logs, checkpoints and the model"
    return [Problem(what, str(place.path), allowed=f"at least {least / 2**20:.0f} MiB", fix="make room, or another --run-root")]


def check_wandb(plan: ExperimentPlan, probe: ExperimentProbe) -> list[Problem]:
    if plan.experiment.tracking.wandb.mode != "online" or probe.is_wandb_logged_in:
        return []
    return [plan.loaded.problem("tracking.wandb.mode", "online, but W&B has no login here", fix="wandb login, or tracking.wandb.mode=auto")]


INPUT_CHECKS: dict[str, Check] = {
    "devices": check_devices,
    "offload": check_offload,
    "run_dir": check_run_dir,
}
"""What the person asked for cannot be done: exit code 2."""

FILE_CHECKS: dict[str, FileCheck] = {
    "paths": check_paths,
    "sources": check_sources,
    "code_files": check_code_files,
    "size": check_size,
}
"""They need no plan: where the experiment has none, because its keys do not fit together, they are told with that."""

EXPERIMENT_INPUT_CHECKS: dict[str, ExperimentCheck] = {
    "hub_cache": check_hub_cache,
}

MACHINE_CHECKS: dict[str, Check] = {
    "nodes": check_nodes,
    "room": check_room,
    "launcher": check_launcher,
    "engine": check_engine,
}
"""This machine lacks something that the plan needs: exit code 3."""

EXPERIMENT_MACHINE_CHECKS: dict[str, ExperimentCheck] = {
    "packages": check_packages,
    "hub": check_hub,
    "weights": check_weights,
    "memory": check_memory,
    "wandb": check_wandb,
}

WHEN_FINE: dict[str, str] = {
    "devices": "enough for every process",
    "run_dir": "new or empty, writable",
    "paths": "every local file and folder is there",
    "sources": "a local model is whole, with the layers and positions asked for; a local table has the task's columns, as far as first lines tell",
    "code_files": "every module and class beside the experiment is there, or none is used",
    "hub_cache": "the hub is on, or nothing is needed of it",
    "size": "the layers that are named are in the model, as far as its files tell",
    "nodes": "one, this machine",
    "room": "enough free space for the run directory",
    "launcher": "installed",
    "packages": "what the training imports is installed",
    "hub": "answers, or nothing is needed of it",
    "weights": "torchvision's are here or their server answers, or none of them are needed",
    "offload": "to somewhere else than where it is, or none",
    "engine": "what it imports is installed",
    "memory": "what a rank will hold fits, as far as it is known",
    "wandb": "a login is there, or none is needed",
}
"""What each check says when it finds nothing."""
