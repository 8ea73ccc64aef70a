"""What to type where a rank would hold more than it has room for; pure."""

from __future__ import annotations

from dataclasses import replace

from launch.config.experiment import Experiment
from launch.config.resolve import divisors
from launch.plan_experiment import ExperimentPlan
from launch.probe import Machine
from launch.sizes.memory import Budget, estimate, host_budget, strategies_by_cost
from launch.sizes.memory_plan import find_activations, find_layout, fitting_micro_batch
from launch.sizes.model_size import ModelSize

_USELESS_ON_CPU = ("ddp", "fsdp2_offload", "zero3_offload")
"""For GPUs alone, or offloading to where everything is already."""


def find_memory_fixes(plan: ExperimentPlan, machine: Machine) -> list[str]:
    """Returns what would make the plan fit, each by itself and by the estimate, the cheapest first; empty where nothing of this would."""
    size, budget = plan.memory.size, plan.memory.budget
    if size is None or budget is None:
        return []
    found = [_micro_batch(plan, machine, size, budget), _strategy(plan, size, budget), _checkpointing(plan, size, budget)]
    return [fix for fix in (*found, _fewer_processes(plan, machine, size)) if fix]


def _micro_batch(plan: ExperimentPlan, machine: Machine, size: ModelSize, budget: Budget) -> str | None:
    micro = fitting_micro_batch(plan.experiment, plan, machine, size)
    is_smaller = micro is not None and micro < plan.batches.micro_batch_size
    return f"train.micro_batch_size={micro}" if micro and is_smaller and _held(plan, plan.experiment, size, micro) <= budget.bytes else None


def _strategy(plan: ExperimentPlan, size: ModelSize, budget: Budget) -> str | None:
    activations = find_activations(plan.experiment, plan, size, plan.batches.micro_batch_size)
    others = strategies_by_cost(size, find_layout(plan, plan.experiment), plan.experiment.optimizer, activations)
    useless = (plan.strategy.name, *(_USELESS_ON_CPU if plan.device == "cpu" else ()))
    return next((f"--strategy {name}" for name, memory in others if memory.total <= budget.bytes and name not in useless), None)


def _checkpointing(plan: ExperimentPlan, size: ModelSize, budget: Budget) -> str | None:
    model = plan.experiment.model
    if model.gradient_checkpointing or not (plan.memory.memory and plan.memory.memory.activations):
        return None
    experiment = plan.experiment.model_copy(update={"model": model.model_copy(update={"gradient_checkpointing": True})})
    for micro in dict.fromkeys((plan.batches.micro_batch_size, 1)):
        if _held(plan, experiment, size, micro) <= budget.bytes:
            smaller = f" train.micro_batch_size={micro}" if micro < plan.batches.micro_batch_size else ""
            return f"model.gradient_checkpointing=true{smaller}"
    return None


def _fewer_processes(plan: ExperimentPlan, machine: Machine, size: ModelSize) -> str | None:
    """On a CPU the processes of a node share its memory."""
    if plan.device != "cpu" or not machine.memory_bytes:
        return None
    activations = find_activations(plan.experiment, plan, size, 1)
    for processes in reversed([n for n in divisors(plan.batches.global_batch_size) if n < plan.processes_per_node]):
        layout = replace(find_layout(plan, plan.experiment), world_size=processes * plan.nodes)
        held = estimate(size, layout, plan.experiment.optimizer, activations).total
        if held <= host_budget(machine.memory_bytes, processes).bytes:
            return f"--processes-per-node {processes}"
    return None


def _held(plan: ExperimentPlan, experiment: Experiment, size: ModelSize, micro_batch_size: int) -> int:
    activations = find_activations(experiment, plan, size, micro_batch_size)
    return estimate(size, find_layout(plan, experiment), experiment.optimizer, activations).total
