"""What a plan says of memory: the estimate, the room there is, the micro-batch that fits; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launch.config.experiment import Experiment
from launch.config.quantities import show_count
from launch.config.resolve import LARGEST_DEFAULT_MICRO_BATCH, divisors
from launch.config.tasks import Ner, QuestionAnswering
from launch.config.tasks.texts import TextsSection
from launch.gpus import Gpu
from launch.plan import LaunchPlan
from launch.probe import Machine
from launch.sizes.memory import GIB, Budget, Layout, Memory, activation_bytes, estimate, gpu_budget, host_budget
from launch.sizes.model_size import ModelSize, UnknownSize

ACTIVATIONS_ERR_BY = 0.25
"""Share of the activations that the estimate may be too high by (docs/measurements.md)."""

LARGEST_MICRO_BATCH = 1024
"""Cap on a GPU whose memory is known: more samples at once are no faster."""


@dataclass(frozen=True)
class MemoryPlan:
    """What one rank holds, and what it may.

    Args:
        memory: None where the model's size is unknown; `notes` say why.
        budget: None where nobody knows the device's memory.
        size: of the model; None where it is unknown.
        is_binding: whether what does not fit is refused (train.memory_check).
    """

    memory: Memory | None
    budget: Budget | None
    notes: tuple[str, ...]
    size: ModelSize | None = None
    is_binding: bool = True

    @property
    def is_too_large(self) -> bool:
        """Whether it does not fit, by the estimate."""
        return self.memory is not None and self.budget is not None and self.memory.total > self.budget.bytes

    @property
    def is_refused(self) -> bool:
        """Whether it would not fit either if the activations were as small as the estimate may err, and nobody wants it all the same."""
        if self.memory is None or self.budget is None or not self.is_binding:
            return False
        return self.memory.total - int(ACTIVATIONS_ERR_BY * (self.memory.activations or 0)) > self.budget.bytes

    @property
    def warning(self) -> str | None:
        """What to say of a training that is not refused, and may run out of memory."""
        if not self.is_too_large or self.is_refused or self.memory is None or self.budget is None:
            return None
        why = "less than the activations' estimate errs by" if self.is_binding else "train.memory_check is warn"
        return f"a rank may run out of memory: {_gib(self.memory.total)} by the estimate, {_gib(max(self.budget.bytes, 0))} of room; {why}"


def plan_memory(experiment: Experiment, launch: LaunchPlan, machine: Machine, size: ModelSize | UnknownSize, micro_batch_size: int) -> MemoryPlan:
    """Returns the estimate for a micro-batch, and the room there is."""
    budget = find_budget(launch, machine)
    if isinstance(size, UnknownSize):
        return MemoryPlan(None, budget, (f"unknown: {size.reason}",))
    layout, activations = find_layout(launch, experiment), find_activations(experiment, launch, size, micro_batch_size)
    is_binding = experiment.train.memory_check == "refuse"
    memory = estimate(size, layout, experiment.optimizer, activations)
    trained = f", {show_count(size.trained)} of them trained" if size.trained != size.parameters else ""
    notes = [f"{show_count(size.parameters)} parameters{trained}, by {size.origin}"]
    if activations is None:
        notes.append("activations: unknown for this kind of model")
    return MemoryPlan(memory, budget, tuple(notes), size, is_binding)


def fitting_micro_batch(experiment: Experiment, launch: LaunchPlan, machine: Machine, size: ModelSize | UnknownSize) -> int | None:
    """Returns the largest divisor of a process's share that fits; 1 where none does; None where the activations or the room are unknown.

    A global batch that does not split over the processes is for resolve_batches to refuse.
    """
    global_batch_size, budget = experiment.train.global_batch_size, find_budget(launch, machine)
    if isinstance(size, UnknownSize) or budget is None or size.transformer is None or global_batch_size % launch.world_size:
        return None
    cap = LARGEST_MICRO_BATCH if launch.device == "cuda" else LARGEST_DEFAULT_MICRO_BATCH
    candidates = [n for n in divisors(global_batch_size // launch.world_size) if n <= cap]
    layout = find_layout(launch, experiment)

    def fits(micro: int) -> bool:
        memory = estimate(size, layout, experiment.optimizer, find_activations(experiment, launch, size, micro))
        return memory.total <= budget.bytes

    return max((n for n in candidates if fits(n)), default=1)


def find_layout(launch: LaunchPlan, experiment: Experiment) -> Layout:
    """Returns how the plan's ranks share the model."""
    strategy, has_average = launch.strategy, experiment.train.ema_decay is not None
    return Layout(launch.engine, launch.precision, launch.world_size, strategy.fsdp, strategy.deepspeed, has_average)


def find_budget(launch: LaunchPlan, machine: Machine) -> Budget | None:
    """Returns what a rank may use of its device, None where nobody knows."""
    if launch.device == "cpu":
        return host_budget(machine.memory_bytes, launch.processes_per_node) if machine.memory_bytes else None
    smallest = _smallest(machine.gpus)
    return gpu_budget(smallest.memory_bytes, smallest.name) if smallest else None


def find_activations(experiment: Experiment, launch: LaunchPlan, size: ModelSize, micro_batch_size: int) -> int | None:
    """Returns the bytes of a micro-batch's activations, None where no formula is known."""
    if size.transformer is None or not isinstance(experiment.task, TextsSection | Ner | QuestionAnswering):
        return None
    checkpointing = experiment.model.gradient_checkpointing or bool(launch.strategy.fsdp and launch.strategy.fsdp.activation_checkpointing)
    dropout = experiment.model.dropout != 0
    return activation_bytes(
        size.transformer,
        experiment.task.max_length,
        micro_batch_size,
        launch.precision,
        checkpointing,
        keeps_scores=launch.device == "cpu" and dropout,
        dropout=dropout,
    )


def describe_memory(plan: MemoryPlan) -> dict[str, Any]:
    """Returns the estimate as plain JSON values, in bytes a rank."""
    memory = plan.memory
    held = {} if memory is None else {name: getattr(memory, name) for name in _ROWS} | {"total": memory.total, "on_host": memory.on_host}
    budget = None if plan.budget is None else {"bytes": plan.budget.bytes, "what": plan.budget.what}
    return {**held, "budget": budget, "fits": None if memory is None or plan.budget is None else not plan.is_too_large, "notes": list(plan.notes)}


def memory_rows(plan: MemoryPlan) -> list[tuple[str, str]]:
    """Returns (what, how much) a rank holds, for a table."""
    memory, rows = plan.memory, []
    if memory is not None:
        rows = [(label, _gib(getattr(memory, name))) for name, label in _ROWS.items() if getattr(memory, name) != 0]
        rows.append(("together" if memory.activations is not None else "together, without activations", _gib(memory.total)))
        if memory.on_host:
            rows.append(("in host memory", _gib(memory.on_host)))
    if plan.budget is not None:
        rows.append(("room", f"{_gib(plan.budget.bytes)} ({plan.budget.what})"))
    return rows


_ROWS = {
    "parameters": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "average": "moving average",
    "gathered": "copies at work",
    "activations": "activations, at most",
}


def _gib(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / GIB:.2f} GiB" if count >= GIB // 10 else f"{count / 2**20:.1f} MiB"


def _smallest(gpus: Sequence[Gpu]) -> Gpu | None:
    return min(gpus, key=lambda gpu: gpu.memory_bytes, default=None)
