"""Judges environment variables that will hurt a training: a table of what each does, pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from launch.checks.findings import Finding
from launch.machine import Environment

OFF = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Hurt:
    """What a variable does to a training, when its value is bad."""

    is_bad: Callable[[str], bool]
    what: str
    fix: str


def _is_on(value: str) -> bool:
    return value.lower() not in OFF


def _is_set(value: str) -> bool:
    return True


HURTS: dict[str, Hurt] = {
    "PYTHONDONTWRITEBYTECODE": Hurt(bool, "every start compiles its imports anew: `import torch` takes four times as long", "unset it"),
    "PYTHONOPTIMIZE": Hurt(bool, "switches off the assertions that libraries rely on", "unset it"),
    "CUDA_LAUNCH_BLOCKING": Hurt(_is_on, "every GPU kernel is waited for: for finding errors, not for training", "unset it"),
    "TORCH_DISTRIBUTED_DEBUG": Hurt(lambda value: value.upper() == "DETAIL", "checks every collective: slow", "unset it, or INFO"),
    "NCCL_P2P_DISABLE": Hurt(_is_on, "GPUs copy to each other through the host's memory: several times slower", "unset it"),
    "NCCL_SHM_DISABLE": Hurt(_is_on, "processes of one node talk over the network", "unset it"),
    "NCCL_IB_DISABLE": Hurt(_is_on, "nodes talk over TCP although there may be InfiniBand", "unset it where there is InfiniBand"),
    "NCCL_DEBUG": Hurt(lambda value: value.upper() in ("INFO", "TRACE"), "fills the logs of every rank", "unset it, or WARN"),
    "NCCL_BLOCKING_WAIT": Hurt(_is_set, "is no longer read by torch under this name", "TORCH_NCCL_BLOCKING_WAIT"),
    "NCCL_ASYNC_ERROR_HANDLING": Hurt(_is_set, "is no longer read by torch under this name", "TORCH_NCCL_ASYNC_ERROR_HANDLING"),
    "TRANSFORMERS_CACHE": Hurt(_is_set, "is no longer read by transformers", "HF_HOME=DIR"),
    "SLURM_CPU_BIND": Hurt(_is_set, "is left over from an allocation: a job step started from here may get too few cores", "unset it"),
}
"""Variable -> when it hurts and how. Sources: NCCL's and torch.distributed's documentation of their variables; goodfire-ai/spd#955."""

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def judge_environment(environment: Environment) -> list[Finding]:
    """Returns what is wrong with the environment, or one finding that nothing is."""
    variables = environment.variables
    found = [
        Finding("environment", "warning", f"{name}={variables[name]}: {hurt.what}", hurt.fix)
        for name, hurt in HURTS.items()
        if name in variables and hurt.is_bad(variables[name])
    ]
    found += _threads(variables, environment.num_cores)
    found += _hidden_gpus(variables, environment.has_gpus)
    found += _interface(variables, environment.interfaces)
    left = [name for name in LAUNCHER_VARIABLES if name in variables]
    if left:
        what = f"{', '.join(left)} left over from another launcher; fullrank's ranks get their own, a plain `python train.py` would wait for others"
        found.append(Finding("environment", "warning", what, f"unset {' '.join(left)}"))
    return found or [Finding("environment", "ok", "no variable that hurts")]


def _threads(variables: Mapping[str, str], num_cores: int) -> list[Finding]:
    text = variables.get("OMP_NUM_THREADS")
    if text is None:
        return []
    if not text.isdigit() or not int(text):
        return [Finding("environment", "warning", f"OMP_NUM_THREADS={text} is not a number of threads", "unset it: cores / processes is chosen")]
    if int(text) > num_cores:
        what = f"OMP_NUM_THREADS={text}, but there are {num_cores} cores: threads wait for each other"
        return [Finding("environment", "warning", what, "unset it: cores / processes is chosen")]
    return []


def _hidden_gpus(variables: Mapping[str, str], has_gpus: bool) -> list[Finding]:
    value = variables.get("CUDA_VISIBLE_DEVICES")
    if not has_gpus or value is None or value.strip() not in ("", "-1"):
        return []
    return [Finding("environment", "warning", f"CUDA_VISIBLE_DEVICES={value!r} hides every GPU: trainings run on the CPU", "unset it")]


def _interface(variables: Mapping[str, str], interfaces: frozenset[str]) -> list[Finding]:
    """NCCL's list: prefixes, `=` before an exact list, `^` before those to leave out (NCCL_SOCKET_IFNAME)."""
    found = []
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        value = variables.get(name, "")
        if not value or value.startswith("^"):
            continue
        wanted = value.lstrip("=").split(",")
        if not any(interface.startswith(prefix) for prefix in wanted for interface in interfaces):
            what = f"{name}={value}: there is no such network interface, so processes cannot meet"
            found.append(Finding("environment", "problem", what, f"one of {', '.join(sorted(interfaces))}; or unset it"))
    return found
