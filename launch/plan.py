"""What any launch has decided before it starts: processes, device, precision, port; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Precision
from launch.config.load import Origin
from launch.config.modes import PLAIN, Mode
from launch.config.run_dir import Attempt, RunDir
from launch.config.strategy import Engine, Strategy
from launch.launchers import Launcher
from launch.precision import imitated_on_gpus, missing_on_cpu, missing_on_gpus
from launch.probe import Probe, derive_port

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Options:
    """What the command line says beside the experiment (or script) and the strategy; None: not said.

    Args:
        run_path: the run directory.
        attempt: number of the attempt that will be started in it.
        micro_batch_size: what an earlier attempt of the run decided; counts where the experiment says null.
    """

    run_path: Path
    attempt: int = 1
    nodes: int | None = None
    processes_per_node: int | None = None
    launcher: Launcher = "direct"
    mode: Mode = PLAIN
    micro_batch_size: int | None = None


@dataclass(frozen=True)
class Value:
    """A value and where it came from."""

    value: Any
    origin: Origin


@dataclass(frozen=True)
class LaunchPlan:
    """Everything that is decided before anything is started, whatever is started.

    `ExperimentPlan` (plan_experiment.py) and `ScriptPlan` (plan_script.py) add what they are about.

    Args:
        name: of the experiment or the script; the folder of its runs.
        device: what the ranks compute on.
        num_threads: OMP_NUM_THREADS of each rank.
        port: where the ranks meet.
        values: dotted key -> value, with where each came from.
    """

    name: str
    strategy: Strategy
    run: RunDir
    attempt: Attempt
    launcher: Launcher
    mode: Mode
    engine: Engine
    device: Device
    precision: Precision
    nodes: int
    processes_per_node: int
    num_threads: int
    port: int
    python: str
    warnings: tuple[str, ...]
    values: dict[str, Value]

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node


@dataclass(frozen=True)
class Asked:
    """A precision that something asked for, and where."""

    precision: Precision
    origin: Origin


def plan_processes(
    name: str, strategy: Strategy, probe: Probe, options: Options, asked: Asked | None = None, default_processes: int | None = None
) -> LaunchPlan:
    """Returns what any launch of these processes has.

    Args:
        asked: a precision that wins over the strategy's.
        default_processes: on each node, where nobody says; None: one, or every GPU.

    Raises:
        ConfigError: the strategy, the counts and the machine do not fit together.
    """
    device: Device = "cuda" if _wants_gpus(strategy, probe) else "cpu"
    nodes = options.nodes or strategy.num_nodes or 1
    if options.mode.is_debug:
        _refuse_several(nodes, options, strategy)
        default_processes = 1
    processes = options.processes_per_node or strategy.processes_per_node or default_processes or _default_processes(strategy, device, probe)
    if strategy.engine == "single" and nodes * processes > 1:
        what = f"{nodes * processes} processes under the strategy {strategy.name}, which is for one, would train separate models"
        raise ConfigError(Problem(what, strategy.where, fix="--strategy auto (or ddp on GPUs, cpu on CPUs)"))
    precision = _precision(asked, strategy, device, probe)
    num_threads = probe.machine.num_threads or max(1, probe.machine.num_cores // processes)
    port = strategy.main_process_port or derive_port(options.run_path.name)
    run = RunDir(options.run_path)
    said_by_strategy = Origin("strategy", strategy.where)
    values: dict[str, tuple[Any, Origin]] = {
        "precision": (precision.precision, precision.origin),
        "nodes": (nodes, _count_origin("--nodes", options.nodes, strategy.num_nodes, strategy)),
        "processes_per_node": (processes, _count_origin("--processes-per-node", options.processes_per_node, strategy.processes_per_node, strategy)),
        "world_size": (nodes * processes, Origin("derived", "nodes x processes_per_node")),
        "strategy": (strategy.name, said_by_strategy if strategy.where else Origin("default")),
        "device": (device, said_by_strategy if strategy.use_cpu is not None else Origin("derived", f"{probe.machine.num_gpus} GPUs here")),
        "threads_per_rank": (
            num_threads,
            Origin("environment", "OMP_NUM_THREADS") if probe.machine.num_threads else Origin("derived", "cores / processes"),
        ),
        "port": (port, said_by_strategy if strategy.main_process_port else Origin("derived", "run id")),
    }
    return LaunchPlan(
        name=name,
        strategy=strategy,
        run=run,
        attempt=run.attempt(options.attempt),
        launcher=options.launcher,
        mode=options.mode,
        engine=_engine(strategy, nodes * processes),
        device=device,
        precision=precision.precision,
        nodes=nodes,
        processes_per_node=processes,
        num_threads=num_threads,
        port=port,
        python=probe.machine.python,
        warnings=tuple(_warnings(precision.precision, device, processes, probe)),
        values={key: Value(value, origin) for key, (value, origin) in values.items()},
    )


def _refuse_several(nodes: int, options: Options, strategy: Strategy) -> None:
    """A debugger needs the terminal to itself."""
    several = options.processes_per_node or strategy.processes_per_node or 1
    if nodes * several > 1:
        where = strategy.where if options.processes_per_node is None and options.nodes is None else None
        raise ConfigError(Problem(f"--debug is for one process, and {nodes * several} are asked for", where, fix="--processes-per-node 1"))
    if options.launcher != "direct":
        raise ConfigError(Problem(f"--debug gives the process the terminal, which {options.launcher} does not", fix="--launcher direct"))


def _engine(strategy: Strategy, world_size: int) -> Engine:
    """A strategy that shards does so with one process too: it may offload."""
    if strategy.engine in ("fsdp2", "deepspeed"):
        return strategy.engine
    return "ddp" if world_size > 1 else "single"


def _wants_gpus(strategy: Strategy, probe: Probe) -> bool:
    return probe.machine.num_gpus > 0 if strategy.use_cpu is None else not strategy.use_cpu


def _default_processes(strategy: Strategy, device: Device, probe: Probe) -> int:
    """One process on a CPU, or under a strategy for one; every GPU otherwise."""
    return max(1, probe.machine.num_gpus) if device == "cuda" and strategy.engine != "single" else 1


def _precision(asked: Asked | None, strategy: Strategy, device: Device, probe: Probe) -> Asked:
    """What was asked for, else the strategy's, else fp32.

    Raises:
        ConfigError: this device, or this engine, has no such arithmetic.
    """
    if asked is None and strategy.precision is not None:
        asked = Asked(strategy.precision, Origin("strategy", strategy.where))
    asked = asked or Asked("fp32", Origin("default"))
    precisions = get_args(Precision)
    if device == "cpu":
        what, possible = missing_on_cpu(asked.precision), [one for one in precisions if missing_on_cpu(one) is None]
    else:
        gpus = probe.machine.gpus
        what, possible = missing_on_gpus(asked.precision, gpus), [one for one in precisions if missing_on_gpus(one, gpus) is None]
    lacking = _ENGINE_LACKS.get(strategy.engine or "ddp", {})
    what, possible = what or lacking.get(asked.precision), [one for one in possible if one not in lacking]
    if what:
        raise ConfigError(
            Problem(what, asked.origin.detail, "train.precision", allowed=", ".join(possible), fix=f"train.precision={_nearest(asked, possible)}")
        )
    return asked


_ENGINE_LACKS: dict[str, dict[Precision, str]] = {
    "deepspeed": {"fp8": "fp8 goes through Accelerate, which DeepSpeed does not"},
    "fsdp2": {
        "fp16": "fp16's loss scaling would have to know of FSDP2's shards, and does not",
        "fp8": "fp8 goes through Accelerate, which FSDP2 does not here",
    },
}
"""What runs on the device and not under the engine, by the engine."""


def _nearest(asked: Asked, possible: Sequence[str]) -> str:
    """Returns the precision to take instead: a half one for a half one."""
    return next((one for one in ("bf16", "fp16") if asked.precision == "fp8" and one in possible), "fp32")


def _count_origin(option: str, asked: int | None, said: int | None, strategy: Strategy) -> Origin:
    if asked is not None:
        return Origin("override", option)
    return Origin("strategy", strategy.where) if said is not None else Origin("default")


def _warnings(precision: Precision, device: Device, processes: int, probe: Probe) -> list[str]:
    machine, warnings = probe.machine, []
    if device == "cuda" and (imitated := imitated_on_gpus(precision, machine.gpus)):
        warnings.append(imitated)
    if precision == "fp8":
        warnings.append("fp8 has not been proved here on a GPU that has it: compare the first losses with bf16's")
    if device == "cpu" and precision == "bf16":
        warnings.append("bf16 on a CPU without AMX is about 3 times slower than fp32: for testing, not for speed")
    if device == "cpu" and machine.num_gpus:
        warnings.append(f"training on the CPU although this machine has {machine.num_gpus} GPU{'s' if machine.num_gpus > 1 else ''}")
    if device == "cpu" and processes > machine.num_cores:
        warnings.append(f"{processes} processes share {machine.num_cores} cores: slower than {machine.num_cores} processes")
    if device == "cuda" and processes < machine.num_gpus:
        warnings.append(f"{machine.num_gpus - processes} of {machine.num_gpus} GPUs stay idle: --processes-per-node {machine.num_gpus} uses all")
    return warnings
