"""What will be started: (experiment, strategy, probe, options) -> LaunchPlan; pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment, Precision, dump_experiment
from launch.config.load import LoadedExperiment, Origin, flatten
from launch.config.resolve import BatchArithmetic, resolve, resolve_batches, total_steps
from launch.config.run_dir import Attempt, RunDir
from launch.config.sources import LocalPath
from launch.config.strategy import Engine, Strategy
from launch.probe import Probe, derive_port

Device = Literal["cpu", "cuda"]
Launcher = Literal["direct", "accelerate", "torchrun", "deepspeed"]
LAUNCHERS: tuple[Launcher, ...] = ("direct", "accelerate", "torchrun", "deepspeed")


@dataclass(frozen=True)
class Options:
    """What the command line says beside the experiment and the strategy; None: not said.

    Args:
        run_path: the run directory.
        attempt: number of the attempt that will be started in it.
    """

    run_path: Path
    attempt: int = 1
    nodes: int | None = None
    processes_per_node: int | None = None
    launcher: Launcher = "direct"


@dataclass(frozen=True)
class Value:
    """A value and where it came from."""

    value: Any
    origin: Origin


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that is decided before anything is started.

    Args:
        experiment: resolved, with local sources as absolute paths.
        device: what the ranks compute on.
        optimizer_steps: of the whole training; None where `optimizer_steps_reason` says why.
        num_threads: OMP_NUM_THREADS of each rank.
        port: where the ranks meet.
        values: every dotted key of the experiment, and the derived numbers.
    """

    loaded: LoadedExperiment
    experiment: Experiment
    strategy: Strategy
    run: RunDir
    attempt: Attempt
    launcher: Launcher
    engine: Engine
    device: Device
    precision: Precision
    nodes: int
    processes_per_node: int
    batches: BatchArithmetic
    optimizer_steps: int | None
    optimizer_steps_reason: str | None
    num_threads: int
    port: int
    python: str
    warnings: tuple[str, ...]
    values: dict[str, Value]

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node


def plan_launch(loaded: LoadedExperiment, strategy: Strategy, probe: Probe, options: Options) -> LaunchPlan:
    """Returns the plan of one attempt.

    Raises:
        ConfigError: the experiment, the strategy and the counts do not fit together.
    """
    experiment = _with_absolute_sources(resolve(loaded), probe)
    device: Device = "cuda" if _wants_gpus(strategy, probe) else "cpu"
    nodes = options.nodes or strategy.num_nodes or 1
    processes = options.processes_per_node or strategy.processes_per_node or _default_processes(strategy, device, probe)
    if strategy.engine == "single" and nodes * processes > 1:
        what = f"{nodes * processes} processes under the strategy {strategy.name}, which is for one, would train separate models"
        raise ConfigError(Problem(what, strategy.where, fix="--strategy auto (or ddp on GPUs, cpu on CPUs)"))
    precision, precision_origin = _precision(loaded, strategy, device)
    batches = _batches(loaded, nodes * processes)
    steps, steps_reason = _optimizer_steps(experiment, probe, batches)
    num_threads = probe.machine.num_threads or max(1, probe.machine.num_cores // processes)
    port = strategy.main_process_port or derive_port(options.run_path.name)
    run = RunDir(options.run_path)
    derived: dict[str, tuple[Any, Origin]] = {
        "train.micro_batch_size": (batches.micro_batch_size, _batch_origin(loaded, batches)),
        "train.precision": (precision, precision_origin),
        "nodes": (nodes, _count_origin("--nodes", options.nodes, strategy.num_nodes, strategy)),
        "processes_per_node": (processes, _count_origin("--processes-per-node", options.processes_per_node, strategy.processes_per_node, strategy)),
        "world_size": (nodes * processes, Origin("derived", "nodes x processes_per_node")),
        "gradient_accumulation_steps": (batches.gradient_accumulation_steps, Origin("derived", "global batch / (micro-batch x world size)")),
        "optimizer_steps": (steps, Origin("derived", steps_reason or "train.duration")),
        "strategy": (strategy.name, Origin("strategy", strategy.where) if strategy.where else Origin("default")),
        "device": (
            device,
            Origin("strategy", strategy.where) if strategy.use_cpu is not None else Origin("derived", f"{probe.machine.num_gpus} GPUs here"),
        ),
        "threads_per_rank": (
            num_threads,
            Origin("environment", "OMP_NUM_THREADS") if probe.machine.num_threads else Origin("derived", "cores / processes"),
        ),
        "port": (port, Origin("strategy", strategy.where) if strategy.main_process_port else Origin("derived", "run id")),
    }
    values = {key: Value(value, loaded.origins.get(key, Origin("default"))) for key, value in flatten(dump_experiment(experiment)).items()}
    return LaunchPlan(
        loaded=loaded,
        experiment=experiment,
        strategy=strategy,
        run=run,
        attempt=run.attempt(options.attempt),
        launcher=options.launcher,
        engine="ddp" if nodes * processes > 1 else "single",
        device=device,
        precision=precision,
        nodes=nodes,
        processes_per_node=processes,
        batches=batches,
        optimizer_steps=steps,
        optimizer_steps_reason=steps_reason,
        num_threads=num_threads,
        port=port,
        python=probe.machine.python,
        warnings=tuple(_warnings(experiment, precision, device, processes, probe)),
        values=values | {key: Value(value, origin) for key, (value, origin) in derived.items()},
    )


def _with_absolute_sources(experiment: Experiment, probe: Probe) -> Experiment:
    """A run directory's files must mean the same from any directory."""
    model = experiment.model.model_copy(update={"source": str(probe.model.path)}) if isinstance(probe.model, LocalPath) else experiment.model
    data = experiment.data.model_copy(update={"source": str(probe.data.path)}) if isinstance(probe.data, LocalPath) else experiment.data
    return experiment.model_copy(update={"model": model, "data": data})


def _wants_gpus(strategy: Strategy, probe: Probe) -> bool:
    return probe.machine.num_gpus > 0 if strategy.use_cpu is None else not strategy.use_cpu


def _default_processes(strategy: Strategy, device: Device, probe: Probe) -> int:
    """One process on a CPU, or under a strategy for one; every GPU otherwise."""
    return max(1, probe.machine.num_gpus) if device == "cuda" and strategy.engine != "single" else 1


def _precision(loaded: LoadedExperiment, strategy: Strategy, device: Device) -> tuple[Precision, Origin]:
    """The experiment's, else the strategy's, else fp32."""
    asked = loaded.experiment.train.precision
    if asked is not None:
        precision, origin = asked, loaded.origins["train.precision"]
    elif strategy.precision is not None:
        precision, origin = strategy.precision, Origin("strategy", strategy.where)
    else:
        precision, origin = "fp32", Origin("default")
    if precision == "fp16" and device == "cpu":
        what = "fp16 needs the loss scaling of a GPU; this training is on the CPU"
        raise ConfigError(Problem(what, origin.detail, "train.precision", allowed="fp32, bf16", fix="train.precision=fp32"))
    return precision, origin


def _batches(loaded: LoadedExperiment, world_size: int) -> BatchArithmetic:
    """The arithmetic, its problems placed where the numbers were set."""
    train = loaded.experiment.train
    try:
        return resolve_batches(train.global_batch_size, world_size, train.micro_batch_size)
    except ConfigError as error:
        raise ConfigError(*(loaded.problem(p.key or "", p.what, p.allowed, p.fix) for p in error.problems)) from error


def _optimizer_steps(experiment: Experiment, probe: Probe, batches: BatchArithmetic) -> tuple[int | None, str | None]:
    duration, samples = experiment.train.duration, probe.samples
    if duration.unit == "steps":
        return int(duration.amount), None
    if samples.num_samples is None:
        return None, samples.reason
    if samples.num_samples == 0:
        raise ConfigError(Problem("the train split is empty", experiment.data.source, "data.splits.train"))
    return total_steps(duration, samples.num_samples, batches.global_batch_size), None


def _batch_origin(loaded: LoadedExperiment, batches: BatchArithmetic) -> Origin:
    if loaded.experiment.train.micro_batch_size is not None:
        return loaded.origins["train.micro_batch_size"]
    return Origin("derived", f"{batches.global_batch_size} samples / {batches.world_size} process{'es' if batches.world_size > 1 else ''}")


def _count_origin(option: str, asked: int | None, said: int | None, strategy: Strategy) -> Origin:
    if asked is not None:
        return Origin("override", option)
    return Origin("strategy", strategy.where) if said is not None else Origin("default")


def _warnings(experiment: Experiment, precision: Precision, device: Device, processes: int, probe: Probe) -> list[str]:
    machine, warnings = probe.machine, []
    if device == "cpu" and precision == "bf16":
        warnings.append("bf16 on a CPU without AMX is about 3 times slower than fp32: for testing, not for speed")
    if device == "cpu" and machine.num_gpus:
        warnings.append(f"training on the CPU although this machine has {machine.num_gpus} GPU{'s' if machine.num_gpus > 1 else ''}")
    if device == "cpu" and processes > machine.num_cores:
        warnings.append(f"{processes} processes share {machine.num_cores} cores: slower than {machine.num_cores} processes")
    if device == "cuda" and processes < machine.num_gpus:
        warnings.append(f"{machine.num_gpus - processes} of {machine.num_gpus} GPUs stay idle: --processes-per-node {machine.num_gpus} uses all")
    num_samples, batch = probe.samples.num_samples, experiment.train.global_batch_size
    if num_samples is not None and batch > num_samples:
        warnings.append(f"a global batch of {batch}, but {num_samples} samples to train on: each epoch is one step of {num_samples}")
    num_workers, fitting = experiment.data.num_workers * processes, max(1, machine.num_cores // processes)
    if num_workers > 2 * machine.num_cores:
        warnings.append(f"{num_workers} data workers on {machine.num_cores} cores: data.num_workers={fitting} may be faster")
    return warnings
