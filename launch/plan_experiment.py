"""What an experiment adds to a launch: (experiment, strategy, probe, options) -> ExperimentPlan; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launch.config.changes import Change
from launch.config.deepspeed import DeepSpeedFacts, resolve_deepspeed
from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment, dump_experiment
from launch.config.load import LoadedExperiment, Origin, flatten
from launch.config.modes import check_steps
from launch.config.resolve import BatchArithmetic, resolve, resolve_batches, total_steps
from launch.config.sources import LocalPath, TorchvisionModel
from launch.config.strategy import Strategy
from launch.plan import Asked, LaunchPlan, Options, Value, plan_processes
from launch.probe import ExperimentProbe
from launch.sizes.memory_plan import MemoryPlan, fitting_micro_batch, plan_memory
from launch.sizes.model_size import ModelSize


@dataclass(frozen=True)
class ExperimentPlan(LaunchPlan):
    """The launch of an experiment.

    Args:
        experiment: resolved, with local sources as absolute paths.
        deepspeed: DeepSpeed's configuration, every "auto" of it a number; None under the other engines.
        memory: what a rank holds, and what it may.
        optimizer_steps: of the whole training; None where `optimizer_steps_reason` says why.
        forced_changes: what differs from the run's earlier attempts and makes it another training, as a person wanted it.
    """

    loaded: LoadedExperiment
    experiment: Experiment
    batches: BatchArithmetic
    optimizer_steps: int | None
    optimizer_steps_reason: str | None
    memory: MemoryPlan
    forced_changes: tuple[Change, ...] = ()
    deepspeed: dict[str, Any] | None = None


def plan_experiment(loaded: LoadedExperiment, strategy: Strategy, probe: ExperimentProbe, options: Options) -> ExperimentPlan:
    """Returns the plan of one attempt.

    Raises:
        ConfigError: the experiment, the strategy and the counts do not fit together.
    """
    experiment = _with_absolute_sources(resolve(loaded), probe)
    _refuse_sync_without_gpus(loaded, strategy, probe)
    _refuse_thawing(loaded, strategy)
    asked = loaded.experiment.train.precision
    launch = plan_processes(experiment.name, strategy, probe, options, Asked(asked, loaded.origins["train.precision"]) if asked else None)
    decided = _decided_micro_batch(experiment, launch, probe, options)
    _refuse_uneven_resume(loaded, launch.world_size, options.attempt)
    batches = _batches(loaded, launch.world_size, decided)
    memory = plan_memory(experiment, launch, probe.machine, probe.size, batches.micro_batch_size)
    steps, steps_reason = _optimizer_steps(experiment, probe, batches)
    if options.mode.profiled_steps and steps is not None:
        check_steps(options.mode.profiled_steps, steps)
    values = {key: Value(value, loaded.origins.get(key, Origin("default"))) for key, value in flatten(dump_experiment(experiment)).items()}
    derived = {("train.precision" if key == "precision" else key): value for key, value in launch.values.items()} | {
        "train.micro_batch_size": Value(batches.micro_batch_size, _batch_origin(loaded, batches, decided, options)),
        "gradient_accumulation_steps": Value(batches.gradient_accumulation_steps, Origin("derived", "global batch / (micro-batch x world size)")),
        "optimizer_steps": Value(steps, Origin("derived", steps_reason or "train.duration")),
    }
    deepspeed = _deepspeed(strategy, experiment, batches, launch, probe)
    doubts = [memory.warning] if memory.warning else []
    batch_norm = _batch_norm_warnings(experiment, probe, batches)
    warnings = (*launch.warnings, *doubts, *_warnings(experiment, launch.processes_per_node, probe), *batch_norm)
    return ExperimentPlan(
        **(vars(launch) | {"warnings": warnings, "values": values | derived}),
        loaded=loaded,
        experiment=experiment,
        batches=batches,
        optimizer_steps=steps,
        optimizer_steps_reason=steps_reason,
        memory=memory,
        deepspeed=deepspeed,
    )


def _with_absolute_sources(experiment: Experiment, probe: ExperimentProbe) -> Experiment:
    """A run directory's files must mean the same from any directory."""
    places = {"source": probe.model, "weights": probe.weights}
    model = experiment.model.model_copy(update={key: str(place.path) for key, place in places.items() if isinstance(place, LocalPath)})
    data = experiment.data.model_copy(update={"source": str(probe.data.path)}) if isinstance(probe.data, LocalPath) else experiment.data
    task = experiment.task.with_sources({key: str(place.path) for key, place in probe.others.items() if isinstance(place, LocalPath)})
    return experiment.model_copy(update={"model": model, "data": data, "task": task})


def _decided_micro_batch(experiment: Experiment, launch: LaunchPlan, probe: ExperimentProbe, options: Options) -> int | None:
    """Returns what counts where the experiment says null: an earlier attempt's number as long as it divides a process's share, else what fits."""
    global_batch_size, earlier = experiment.train.global_batch_size, options.micro_batch_size
    if earlier and global_batch_size % (earlier * launch.world_size) == 0:
        return earlier
    return fitting_micro_batch(experiment, launch, probe.machine, probe.size)


def _batches(loaded: LoadedExperiment, world_size: int, decided: int | None) -> BatchArithmetic:
    """The arithmetic, its problems placed where the numbers were set."""
    train = loaded.experiment.train
    try:
        return resolve_batches(train.global_batch_size, world_size, train.micro_batch_size or decided)
    except ConfigError as error:
        raise ConfigError(*(loaded.problem(p.key or "", p.what, p.allowed, p.fix) for p in error.problems)) from error


def _refuse_uneven_resume(loaded: LoadedExperiment, world_size: int, attempt: int) -> None:
    """A run that goes on keeps its global batch, so of the two only the number of processes can give way."""
    batch = loaded.experiment.train.global_batch_size
    if attempt > 1 and batch % world_size:
        fitting = [count for count in range(1, world_size) if batch % count == 0]
        what = f"a global batch of {batch}, which stays as it was, does not split evenly over {world_size} processes"
        listed = ", ".join(map(str, fitting[-12:]))
        raise ConfigError(Problem(what, key="--processes-per-node", allowed=f"{listed}, or more", fix=f"--processes-per-node {fitting[-1]}"))


def _optimizer_steps(experiment: Experiment, probe: ExperimentProbe, batches: BatchArithmetic) -> tuple[int | None, str | None]:
    duration, samples = experiment.train.duration, probe.samples
    if samples.num_samples == 0:
        fraction = experiment.data.train_fraction
        if fraction is not None:
            raise ConfigError(
                Problem(
                    f"{fraction} of the rows leave none to train on",
                    experiment.data.source,
                    "data.train_fraction",
                    fix="data.train_fraction=null, or a larger share",
                )
            )
        raise ConfigError(Problem("the train split is empty", experiment.data.source, "data.splits.train"))
    if duration.unit == "steps":
        return int(duration.amount), None
    if samples.num_samples is None:
        return None, samples.reason
    return total_steps(duration, samples.num_samples, batches.global_batch_size), None


def _deepspeed(
    strategy: Strategy, experiment: Experiment, batches: BatchArithmetic, launch: LaunchPlan, probe: ExperimentProbe
) -> dict[str, Any] | None:
    if strategy.deepspeed is None:
        return None
    size = probe.size if isinstance(probe.size, ModelSize) else None
    hidden_size = size.transformer.hidden_size if size and size.transformer else None
    return resolve_deepspeed(
        strategy.deepspeed, DeepSpeedFacts(experiment, batches, launch.precision, hidden_size, size.parameters if size else None)
    )


def _batch_origin(loaded: LoadedExperiment, batches: BatchArithmetic, decided: int | None, options: Options) -> Origin:
    if loaded.experiment.train.micro_batch_size is not None:
        return loaded.origins["train.micro_batch_size"]
    if decided is not None:
        return Origin("derived", "an earlier attempt" if decided == options.micro_batch_size else "the largest that fits, by the memory estimate")
    return Origin("derived", f"{batches.global_batch_size} samples / {batches.world_size} process{'es' if batches.world_size > 1 else ''}")


def _refuse_thawing(loaded: LoadedExperiment, strategy: Strategy) -> None:
    """DeepSpeed divides at the start what is trained then."""
    if loaded.experiment.train.unfreeze_at and strategy.engine == "deepspeed":
        what, fix = "DeepSpeed divides at the start what is trained then", "--strategy ddp or fsdp2, which thaw; or train.unfreeze_at={}"
        raise ConfigError(loaded.problem("train.unfreeze_at", what, fix=fix))


def _refuse_sync_without_gpus(loaded: LoadedExperiment, strategy: Strategy, probe: ExperimentProbe) -> None:
    if loaded.experiment.model.batch_norm == "sync" and (strategy.use_cpu or not probe.machine.num_gpus):
        what = "SyncBatchNorm exists on GPUs only, and this training is on the CPU"
        raise ConfigError(loaded.problem("model.batch_norm", what, allowed="train, frozen", fix="model.batch_norm=frozen"))


def _batch_norm_warnings(experiment: Experiment, probe: ExperimentProbe, batches: BatchArithmetic) -> list[str]:
    """Where it is known by name that a network has BatchNorm; of any other the ranks say so once they have built it."""
    micro, model = batches.micro_batch_size, experiment.model
    if not isinstance(probe.model, TorchvisionModel) or model.batch_norm != "train" or micro == batches.global_batch_size:
        return []
    if probe.model.name.startswith(_WITHOUT_BATCH_NORM) and not probe.model.name.endswith("_bn"):
        return []
    return [
        f"BatchNorm sees micro-batches of {micro}, not the global batch of {batches.global_batch_size}: losses depend on the number of processes "
        "(1 to 8 % measured); model.batch_norm=frozen avoids it, or sync on GPUs"
    ]


_WITHOUT_BATCH_NORM = ("alexnet", "squeezenet", "vgg", "vit_", "swin_", "convnext_", "fasterrcnn_")
"""Names of torchvision's networks without BatchNorm begin so (0.29; vgg16_bn and its like have it); in detectors our task freezes it."""


def _warnings(experiment: Experiment, processes: int, probe: ExperimentProbe) -> list[str]:
    machine, warnings = probe.machine, []
    num_samples, batch = probe.samples.num_samples, experiment.train.global_batch_size
    if num_samples is not None and batch > num_samples:
        warnings.append(f"a global batch of {batch}, but {num_samples} samples to train on: each epoch is one step of {num_samples}")
    num_workers, fitting = experiment.data.num_workers * processes, max(1, machine.num_cores // processes)
    if num_workers > 2 * machine.num_cores:
        warnings.append(f"{num_workers} data workers on {machine.num_cores} cores: data.num_workers={fitting} may be faster")
    return warnings
