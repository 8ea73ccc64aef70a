"""What the launcher was told and what train.py was told must be one training."""

from __future__ import annotations

import os

from launch.config.errors import ConfigError, Problem
from launch.config.strategy import Strategy, find_strategy
from trainers.world import World

_ENGINE_VARIABLES = {"ACCELERATE_USE_FSDP": "fsdp2", "ACCELERATE_USE_DEEPSPEED": "deepspeed"}


def choose_strategy(strategy: Strategy | None) -> Strategy | None:
    """Returns the strategy of --strategy, else the one that `accelerate launch` put into the environment.

    Accelerate must not see the variables: its plugins would prepare the model a second time, or, on a CPU, not at all without a word.

    Raises:
        ConfigError: the two name different engines.
    """
    told = {name: engine for name, engine in _ENGINE_VARIABLES.items() if _is_set(name)}
    found = find_strategy(os.environ) if told else None
    for name, engine in told.items():
        if strategy is not None and strategy.engine != engine:
            what = f"accelerate was told {engine} ({name}), and the strategy {strategy.name} is {strategy.engine or 'auto'}"
            raise ConfigError(Problem(what, where=strategy.where, fix="one strategy: the same file for both, or leave --strategy out"))
        del os.environ[name]
    return strategy or found


def refuse_contradictions(world: World, strategy: Strategy | None) -> None:
    """Compares the strategy with the processes that were found, and Accelerate's variables with what there is an engine for.

    Raises:
        ConfigError: they differ, or a variable asks for what has no engine here.
    """
    for name in ("ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG"):
        if _is_set(name):
            raise ConfigError(Problem(f"accelerate was told {name}, which has no engine here", allowed="NO, MULTI_CPU, MULTI_GPU, FSDP, DEEPSPEED"))
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("", "no"):
        what = f"accelerate was told to compile (ACCELERATE_DYNAMO_BACKEND={os.environ['ACCELERATE_DYNAMO_BACKEND']}); that belongs to the experiment"
        raise ConfigError(Problem(what, fix="model.compile=true, without the variable or dynamo_config"))
    if strategy is None or strategy.engine is None:
        return
    nodes, per_node = strategy.num_nodes or 1, strategy.processes_per_node
    if per_node is not None and nodes * per_node != world.world_size:
        what = f"the strategy is for {nodes * per_node} processes, and {world.world_size} were started: training would not be what the file says"
        raise ConfigError(Problem(what, where=strategy.where, fix=f"start {nodes * per_node} processes, or leave --strategy out"))
    if strategy.engine == "single" and world.world_size > 1:
        raise ConfigError(Problem(f"distributed_type NO with {world.world_size} processes would train separate models", where=strategy.where))


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")
