"""LaunchPlan -> the text of every file and every command line; pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from launch.config.changes import ACCEPTED_VARIABLE
from launch.config.experiment import dump_experiment
from launch.config.modes import PLAIN
from launch.config.resolve import resolve_batches
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.plan_script import ScriptPlan
from launch.probe import Probe
from launch.render_strategy import MIXED_PRECISION, configured_deepspeed, joins_processes, num_processes, render_accelerate, script_engine_environment
from launch.sizes.memory_plan import describe_memory

MODULE = "trainers.train"


def render_files(plan: LaunchPlan, probe: Probe) -> dict[str, str]:
    """Returns {path below the run directory: text} of the run's own files and the attempt's."""
    own = {}
    if isinstance(plan, ExperimentPlan):
        own = {
            "experiment.yaml": plan.loaded.text,
            "overrides.txt": "".join(f"{override}\n" for override in plan.loaded.overrides),
            "resolved.yaml": render_resolved(plan),
        }
    return {
        **own,
        **{str((plan.attempt.path / name).relative_to(plan.run.path)): text for name, text in render_attempt(plan, probe).items()},
    }


def render_attempt(plan: LaunchPlan, probe: Probe) -> dict[str, str]:
    """Returns {name: text} of the files that belong to one attempt."""
    deepspeed = configured_deepspeed(plan)
    return {
        "accelerate.yaml": render_accelerate(plan),
        **({"deepspeed.json": _json(deepspeed)} if deepspeed else {}),
        "command.sh": render_command(plan),
        "environment.json": _json(describe_environment(probe)),
        "plan.json": _json(describe_plan(plan)),
    }


def render_resolved(plan: ExperimentPlan) -> str:
    """Returns the experiment with every default, as an experiment file."""
    header = f"# {plan.name}: every value, defaults included. It is an experiment again:  fullrank run resolved.yaml\n"
    return header + yaml.safe_dump(dump_experiment(plan.experiment), sort_keys=False, allow_unicode=True, width=120)


def render_command(plan: LaunchPlan) -> str:
    """Returns a bash script that trains the same again, in a new run directory, without fullrank."""
    example = "script:  bash command.sh --lr 3e-5" if isinstance(plan, ScriptPlan) else "training:  bash command.sh optimizer.lr=3e-5"
    head = [
        "#!/usr/bin/env bash",
        f"# {plan.name}: the same training again, in a new run directory, without fullrank ({num_processes(plan)}).",
        f"# Arguments go on to the {example}",
        "set -euo pipefail",
        *([f"cd {shlex.quote(str(plan.folder))}"] if isinstance(plan, ScriptPlan) else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in launch_environment(plan).items()),
    ]
    if plan.launcher != "direct" or not joins_processes(plan):
        return "\n".join([*head, f'exec {_wrapped(launch_argv(plan, run_dir=False))} "$@"']) + "\n"
    return "\n".join(
        [*head, "", f'command=({_wrapped(launch_argv(plan, run_dir=False))} "$@")', _START_ALL_RANKS.format(last=plan.processes_per_node - 1)]
    )


_START_ALL_RANKS = """
pids=()
for rank in {{0..{last}}}; do
  RANK=$rank LOCAL_RANK=$rank "${{command[@]}}" &
  pids+=("$!")
done

signalled=
trap 'signalled=1; kill -INT "${{pids[@]}}" 2>/dev/null || true' INT
trap 'signalled=1; kill -TERM "${{pids[@]}}" 2>/dev/null || true' TERM USR2

# Wait for every rank. 75 and 130 mean that all ranks stop together; any other failure ends the rest at once.
first=0
left=${{#pids[@]}}
while ((left > 0)); do
  code=0
  wait -n || code=$?
  if [[ -n $signalled ]] && ((code > 128)); then
    signalled= # the signal ended the wait, not a rank
    continue
  fi
  if ((code == 127)) && [[ -z $(jobs -p) ]]; then break; fi
  left=$((left - 1))
  if ((code != 0 && first == 0)); then
    first=$code
    if ((code != 75 && code != 130)); then kill -KILL "${{pids[@]}}" 2>/dev/null || true; fi
  fi
done
exit "$first"
"""


def launch_argv(plan: LaunchPlan, run_dir: bool = True) -> list[str]:
    """Returns the command of one rank (direct), or of the stock launcher that starts them."""
    words = program(plan, run_dir)
    if plan.launcher == "direct":
        return [plan.python, *(["-P"] if words[0] == "-m" else []), *words]
    if plan.launcher == "deepspeed" and words[0] == "-m":
        words[0] = "--module"
    return [plan.python, "-P", "-m", *_launcher_arguments(plan), *words]


def program(plan: LaunchPlan, run_dir: bool = True) -> list[str]:
    """Returns the program of one rank, as python, torchrun and accelerate launch take it."""
    if isinstance(plan, ScriptPlan):
        return [str(plan.script), *plan.arguments]
    training = ["--config", str(plan.run.resolved), "--strategy", str(plan.attempt.accelerate)]
    training += ["--run-dir", str(plan.run.path)] if run_dir else []
    training += plan.mode.training_arguments()
    return ["-m", MODULE, *training, *_decided_overrides(plan)]


def _decided_overrides(plan: LaunchPlan) -> list[str]:
    """Returns what the plan decided and the ranks could not find out by themselves, as they take it."""
    if not isinstance(plan, ExperimentPlan) or plan.experiment.train.micro_batch_size is not None:
        return []
    batches = plan.batches
    is_the_rule = resolve_batches(batches.global_batch_size, batches.world_size, None) == batches
    return [] if is_the_rule else [f"train.micro_batch_size={batches.micro_batch_size}"]


def _launcher_arguments(plan: LaunchPlan) -> list[str]:
    processes = str(plan.processes_per_node)
    if plan.launcher == "accelerate":
        return ["accelerate.commands.launch", "--config_file", str(plan.attempt.accelerate)]
    if plan.launcher == "torchrun":
        counts = ["--nnodes", str(plan.nodes), "--nproc-per-node", processes]
        return ["torch.distributed.run", *counts, "--master-addr", "127.0.0.1", "--master-port", str(plan.port)]
    return ["deepspeed.launcher.runner", "--num_gpus", processes, "--master_port", str(plan.port), "--no_local_rank"]


def launch_environment(plan: LaunchPlan) -> dict[str, str]:
    """Returns the variables that the command of `launch_argv` needs."""
    environment = {"OMP_NUM_THREADS": str(plan.num_threads)}
    if plan.launcher != "direct":
        if not isinstance(plan, ScriptPlan):
            environment["PYTHONSAFEPATH"] = "1"  # what -P is to the ranks that a stock launcher starts
    elif joins_processes(plan):
        environment |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(plan.port),
            "WORLD_SIZE": str(plan.world_size),
            "LOCAL_WORLD_SIZE": str(plan.processes_per_node),
        }
    if "deepspeed" in (plan.launcher, plan.engine) and plan.device == "cpu":
        environment["DS_ACCELERATOR"] = "cpu"
    if isinstance(plan, ScriptPlan):
        environment |= _script_environment(plan)
    if isinstance(plan, ExperimentPlan) and plan.forced_changes:
        environment[ACCEPTED_VARIABLE] = ",".join(change.key for change in plan.forced_changes)
    return environment


def _script_environment(plan: ScriptPlan) -> dict[str, str]:
    """What tells a script of the plan that train.py reads from its strategy file."""
    environment = {}
    if plan.device == "cpu":
        environment = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}  # without the first, Accelerator() joins no processes on a CPU
    if MIXED_PRECISION[plan.precision] != "no":
        environment["ACCELERATE_MIXED_PRECISION"] = MIXED_PRECISION[plan.precision]
    return environment | script_engine_environment(plan)


def rank_environment(plan: LaunchPlan, rank: int) -> dict[str, str]:
    """Returns the variables of one rank that fullrank starts itself, as torchrun would set them."""
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank % plan.processes_per_node)} if joins_processes(plan) else {}
    return launch_environment(plan) | own


def describe_plan(plan: LaunchPlan) -> dict[str, Any]:
    """Returns the plan as plain JSON values; plan.json and `plan --json` share it."""
    own: dict[str, Any] = {}
    if isinstance(plan, ExperimentPlan):
        own = {
            "global_batch_size": plan.batches.global_batch_size,
            "micro_batch_size": plan.batches.micro_batch_size,
            "gradient_accumulation_steps": plan.batches.gradient_accumulation_steps,
            "optimizer_steps": plan.optimizer_steps,
            "optimizer_steps_reason": plan.optimizer_steps_reason,
            "memory": describe_memory(plan.memory),
            **({"forced_changes": [vars(change) for change in plan.forced_changes]} if plan.forced_changes else {}),
        }
    if isinstance(plan, ScriptPlan):
        own = {"script": str(plan.script), "arguments": list(plan.arguments), "folder": str(plan.folder)}
    return {
        "experiment": plan.name,
        "run": str(plan.run.path),
        "attempt": plan.attempt.number,
        "strategy": plan.strategy.name,
        "strategy_file": plan.strategy.where,
        "engine": plan.engine,
        "device": plan.device,
        "precision": plan.precision,
        "launcher": plan.launcher,
        "nodes": plan.nodes,
        "processes_per_node": plan.processes_per_node,
        "world_size": plan.world_size,
        **own,
        **({"mode": plan.mode.as_dict()} if plan.mode != PLAIN else {}),
        "threads_per_rank": plan.num_threads,
        "port": plan.port,
        "command": launch_argv(plan),
        "environment": launch_environment(plan),
        "warnings": list(plan.warnings),
        "values": {key: {"value": value.value, "origin": str(value.origin)} for key, value in plan.values.items()},
    }


def describe_environment(probe: Probe) -> dict[str, Any]:
    """Returns versions, git and host; never a secret, never the whole environment."""
    machine, code = probe.machine, probe.code
    return {
        "host": machine.host,
        "num_cores": machine.num_cores,
        "num_gpus": machine.num_gpus,
        "memory_gib": round(machine.memory_bytes / 2**30, 1) if machine.memory_bytes else None,
        "python": machine.python,
        "python_version": machine.python_version,
        "versions": probe.versions,
        "git": {"commit": code.commit, "root": str(code.root) if code.root else None, "is_dirty": code.is_dirty},
    }


def _wrapped(argv: list[str]) -> str:
    """Returns a command for bash, an option and its value to a line."""
    lines: list[str] = []
    for word in argv:
        if word.startswith("--") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n  ".join(lines)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
