"""Judges what a machine answered: one table of small checks, pure."""

from __future__ import annotations

from collections.abc import Callable

from launch.checks.environment import judge_environment
from launch.checks.findings import Finding
from launch.config.errors import install_words
from launch.machine import Folder, Surroundings

Check = Callable[[Surroundings], list[Finding]]

EXTRA_IS_FOR = {
    "train": "run, resume, fetch and report on this machine",
    "deepspeed": "strategies of DeepSpeed",
    "tensorboard": "tracking.tensorboard=true",
}
"""The extras that a person may miss, and what needs them."""

OLDEST_DRIVERS = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
"""CUDA's major version -> the oldest Linux driver that runs it (minor version compatibility, CUDA Toolkit release notes, table 2)."""

FIRST_BF16_CAPABILITY = 8.0
"""Compute capability of the first GPUs with bf16 in hardware (Ampere; CUDA C++ Programming Guide)."""

ROOM_BYTES = {"cache": 5 * 2**30, "hub cache": 5 * 2**30, "runs": 5 * 2**30, "temporary files": 2**29, "shared memory": 2**30}
"""Less than this is warned of: BERT's weights, data and checkpoints fit into 5 GiB; batches between data workers use shared memory,
of which a container has 64 MiB unless told otherwise."""

SMALLEST_ROOM_BYTES = 2**26
FEWEST_INODES = 10_000


def judge_machine(answers: Surroundings) -> list[Finding]:
    """Returns the findings of every check, in the order of the table."""
    return [finding for check in CHECKS.values() for finding in check(answers)]


def check_python(answers: Surroundings) -> list[Finding]:
    machine = answers.machine
    memory = f", {machine.memory_bytes / 2**30:.0f} GiB of memory" if machine.memory_bytes else ""
    return [
        Finding("python", "ok", f"{machine.python_version}, {machine.python}; fullrank {answers.versions.get('fullrank', 'from its source')}"),
        Finding("machine", "ok", f"{machine.host}: {machine.num_cores} cores{memory}"),
    ]


def check_extras(answers: Surroundings) -> list[Finding]:
    found = []
    for extra, purpose in EXTRA_IS_FOR.items():
        missing = sorted(answers.extras.get(extra, frozenset()) - set(answers.versions))
        if missing:
            what = f"{', '.join(missing)} not installed: needed for {purpose}"
            found.append(Finding(f"extra {extra}", "ok" if extra != "train" else "warning", what, install_words(extra)))
        else:
            found.append(Finding(f"extra {extra}", "ok", f"installed, for {purpose}"))
    return found


def check_gpus(answers: Surroundings) -> list[Finding]:
    if answers.gpu_error:
        return [Finding("gpus", "problem", f"nvidia-smi fails: {answers.gpu_error}", "the driver has to be mended (or the machine restarted)")]
    if not answers.gpus:
        num_gpus = answers.machine.num_gpus
        return [Finding("gpus", "ok", f"{num_gpus}, by the driver's own list" if num_gpus else "none: trainings here run on the CPU")]
    kinds = {(gpu.name, round(gpu.memory_gib)) for gpu in answers.gpus}
    shown = ", ".join(
        f"{sum((gpu.name, round(gpu.memory_gib)) == kind for gpu in answers.gpus)} x {kind[0]} ({kind[1]} GiB)" for kind in sorted(kinds)
    )
    found = [Finding("gpus", "warning" if len(kinds) > 1 else "ok", f"{shown}, driver {answers.gpus[0].driver}")]
    if len(kinds) > 1:
        found.append(Finding("gpus", "warning", "of different kinds: the slowest sets the pace", "CUDA_VISIBLE_DEVICES=... of one kind"))
    if any(gpu.capability is not None and gpu.capability < FIRST_BF16_CAPABILITY for gpu in answers.gpus):
        found.append(Finding("gpus", "warning", "older than Ampere: bf16 is emulated and slow", "train.precision=fp16"))
    return found


def check_torch(answers: Surroundings) -> list[Finding]:
    version = answers.versions.get("torch")
    if version is None:
        return []
    cuda = answers.torch_cuda
    if cuda is None:
        has_gpus = bool(answers.gpus or answers.machine.num_gpus)
        what = f"{version}, built for the CPU"
        return [Finding("torch", "problem" if has_gpus else "ok", what, "pip install torch from an index with CUDA wheels" if has_gpus else None)]
    found = [Finding("torch", "ok", f"{version}, built for CUDA {cuda}")]
    if unfit := unfit_driver(answers.gpus[0].driver if answers.gpus else None, cuda):
        found.append(Finding("driver", "problem", unfit, NEWER_DRIVER))
    return found


NEWER_DRIVER = "a newer driver, or a torch built for an older CUDA"


def unfit_driver(driver: str | None, cuda: str | None) -> str | None:
    """Returns why torch would see no GPU with this driver; None: it would, as far as both versions are known."""
    oldest = OLDEST_DRIVERS.get(int(cuda.split(".")[0])) if cuda else None
    if oldest is None or driver is None or _numbers(driver) >= oldest:
        return None
    return f"the driver {driver} is too old for CUDA {cuda}, which needs {oldest[0]}.{oldest[1]} or newer: torch would see no GPU"


def check_compiler(answers: Surroundings) -> list[Finding]:
    """DeepSpeed compiles its operators on first use."""
    if "deepspeed" not in answers.versions:
        return []
    missing = [tool for tool in ("g++", "ninja") if tool not in answers.tools]
    if not missing:
        return [Finding("compiler", "ok", "g++ and ninja, for DeepSpeed's operators (built on first use, 35 to 60 s)")]
    fix = "apt install g++, or module load gcc; pip install ninja"
    return [Finding("compiler", "warning", f"{' and '.join(missing)} not found: DeepSpeed cannot build its operators", fix)]


def check_folders(answers: Surroundings) -> list[Finding]:
    return [finding for purpose, folder in answers.folders.items() for finding in _judge_folder(purpose, folder)]


def check_hub(answers: Surroundings) -> list[Finding]:
    if answers.is_hub_reachable is None:
        return [Finding("hub", "ok", "switched off (HF_HUB_OFFLINE): only what its cache holds can be used")]
    if answers.is_hub_reachable:
        return [Finding("hub", "ok", f"{answers.hub} answers")]
    fix = "fullrank fetch EXPERIMENT where there is a network, then HF_HUB_OFFLINE=1 here; or a proxy (https_proxy)"
    return [Finding("hub", "warning", f"{answers.hub} does not answer: only what its cache holds can be used", fix)]


def check_wandb(answers: Surroundings) -> list[Finding]:
    if answers.is_wandb_logged_in:
        return [Finding("wandb", "ok", "a login is there")]
    return [Finding("wandb", "ok", "no login: runs are recorded offline (fullrank sync sends them later)", "wandb login")]


def check_slurm(answers: Surroundings) -> list[Finding]:
    has = {"sinfo", "sbatch"} & answers.tools
    if not has:
        return [Finding("slurm", "ok", "not here: fullrank run only")]
    if len(has) == 1:
        return [Finding("slurm", "warning", f"{has.pop()} is here, but not both of sinfo and sbatch", "module load slurm, or ask the site")]
    if not answers.slurm:
        return [Finding("slurm", "warning", f"its commands do not work here: {answers.slurm_error}", "SLURM_CONF=FILE, or ask the site")]
    job = answers.environment.variables.get("SLURM_JOB_ID")
    return [Finding("slurm", "ok", answers.slurm + (f", inside job {job}" if job else ""))]


CHECKS: dict[str, Check] = {
    "python": check_python,
    "extras": check_extras,
    "torch": check_torch,
    "gpus": check_gpus,
    "compiler": check_compiler,
    "folders": check_folders,
    "hub": check_hub,
    "wandb": check_wandb,
    "slurm": check_slurm,
    "environment": lambda answers: judge_environment(answers.environment),
}


def _judge_folder(purpose: str, folder: Folder) -> list[Finding]:
    variable = {"cache": "FULLRANK_CACHE", "hub cache": "HF_HOME", "runs": "FULLRANK_RUN_ROOT", "temporary files": "TMPDIR"}.get(purpose)
    fix = f"{variable}=DIR with room and write permission" if variable else "docker run --shm-size=8g, or data.num_workers=0"
    if not folder.is_writable:
        return [Finding(purpose, "problem", f"{folder.path} cannot be written to", fix)]
    if folder.free_bytes is None:
        return [Finding(purpose, "warning", f"{folder.path}: its free space cannot be told", fix)]
    free = f"{folder.path}, {folder.free_bytes / 2**30:.1f} GiB free"
    if folder.free_inodes is not None and folder.free_inodes < FEWEST_INODES:
        return [Finding(purpose, "warning", f"{free}, but room for {folder.free_inodes} files only", fix)]
    if folder.free_bytes < SMALLEST_ROOM_BYTES and variable:
        return [Finding(purpose, "problem", free, fix)]
    return [Finding(purpose, "warning", free, fix) if folder.free_bytes < ROOM_BYTES[purpose] else Finding(purpose, "ok", free)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
