"""Every question asked of the machine, of git and of the installed packages; answers are frozen data."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from launch.checks.missing_code import find_missing_code
from launch.checks.unfit_models import find_unfit_models
from launch.checks.unfit_sources import find_unfit_sources
from launch.config.errors import Problem
from launch.config.experiment import Experiment
from launch.config.hub import has_torchvision_weights, hub_endpoint, is_hub_cached, is_hub_offline, is_reachable
from launch.config.prepared import read_prepared
from launch.config.row_files import file_of_split
from launch.config.sources import HubName, LocalPath, Source, TorchvisionModel, parse_model, parse_source
from launch.gpus import Gpu, probe_gpus
from launch.near_paths import find_near_paths
from launch.sizes.model_files import probe_model_size
from launch.sizes.model_size import ModelSize, UnknownSize
from launch.sizes.samples import SampleCount, count_train_samples

REPORTED_PACKAGES = (
    "fullrank",
    "torch",
    "transformers",
    "accelerate",
    "deepspeed",
    "datasets",
    "tokenizers",
    "safetensors",
    "torchao",
    "transformer-engine",
    "torchmetrics",
    "wandb",
    "numpy",
)
"""Distributions whose versions go into environment.json."""

TRAINING_PACKAGES = ("torch", "transformers", "accelerate", "datasets")
"""Those of the extra [train] without which no experiment can be trained."""

DRIVER_GPUS = Path("/proc/driver/nvidia/gpus")
"""One folder a GPU, where NVIDIA's driver is loaded."""

WEIGHTS_SERVER = "https://download.pytorch.org"
"""Where the weights that torchvision names lie. Source: torchvision's models/*.py."""

_FIRST_PORT, _NUM_PORTS = 20000, 12000
"""Ports 20000 to 31999: below 32768, where Linux begins to hand out ephemeral ports (enroot#243)."""


@dataclass(frozen=True)
class Machine:
    """This computer.

    Args:
        num_threads: OMP_NUM_THREADS, if the person set it.
        gpus: what is known of the GPUs; empty where nobody could be asked.
    """

    host: str
    num_cores: int
    num_gpus: int
    memory_bytes: int | None
    num_threads: int | None
    python: str
    python_version: str
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Code:
    """The git repository around the working directory; commit None: there is none."""

    commit: str | None = None
    root: Path | None = None
    is_dirty: bool = False


@dataclass(frozen=True)
class Place:
    """Where the run directory will be."""

    path: Path
    exists: bool
    is_empty: bool
    is_writable: bool
    free_bytes: int | None


@dataclass(frozen=True)
class Probe:
    """The answers that any launch needs.

    Args:
        versions: distribution -> version, of those that are installed.
    """

    machine: Machine
    code: Code
    versions: dict[str, str]
    place: Place


@dataclass(frozen=True)
class ExperimentProbe(Probe):
    """All answers for one experiment.

    Args:
        model, data: what the two sources name.
        missing_paths: keys of the experiment whose local path is not there, with that path.
        near_paths: keys of the experiment whose path or hub name is not there, with the nearest name that is.
        is_offline: whether the hub is switched off (HF_HUB_OFFLINE).
        hub_cached: keys of the experiment whose hub name is in the local hub cache, or prepared.
        unreachable_hub: the hub's URL, if one of the names must be fetched and it does not answer.
        is_wandb_logged_in: whether the W&B client would find a key (which is never read into memory here).
        size: of the model, by its files.
        weights: what model.weights names.
        others: what the task's own keys name (task.teacher).
        missing_code: what is wrong with model.class and task.file, as far as reading the files tells.
        unreachable_weights: the server of torchvision's weights, if they must be fetched and it does not answer.
        unfit_sources: what is wrong with local sources that are there, as far as names and first lines tell.
    """

    model: Source
    data: Source
    samples: SampleCount
    missing_paths: dict[str, Path]
    is_offline: bool
    hub_cached: frozenset[str]
    unreachable_hub: str | None
    is_wandb_logged_in: bool
    size: ModelSize | UnknownSize
    weights: Source | None = None
    others: Mapping[str, Source] = field(default_factory=dict)
    missing_code: tuple[Problem, ...] = ()
    unfit_sources: tuple[Problem, ...] = ()
    unreachable_weights: str | None = None
    near_paths: dict[str, str] = field(default_factory=dict)


def probe(run_path: Path, code: Path) -> Probe:
    """Returns what any plan needs to know of the world.

    Args:
        code: the folder whose git repository is the run's code.
    """
    return Probe(machine=probe_machine(), code=probe_code(code), versions=probe_versions(), place=probe_place(run_path))


def probe_experiment(experiment: Experiment, run_path: Path, experiment_file: Path) -> ExperimentProbe:
    """Returns what plan and preflight of an experiment need to know of the world."""
    model = parse_model(experiment.model)
    data = parse_source(experiment.data.source, "data.source")
    others = {key: parse_source(text, key) for key, text in experiment.task.sources().items()}
    hub_cached = _hub_cached(experiment, model, data, others)
    sources = {"model.source": model, "data.source": data, **others}
    hub_names = {key for key, source in sources.items() if isinstance(source, HubName)}
    missing_paths = _missing_paths(experiment, model, data, others)
    return ExperimentProbe(
        **vars(probe(run_path, Path.cwd())),
        model=model,
        data=data,
        samples=count_train_samples(experiment, data),
        others=others,
        missing_paths=missing_paths,
        near_paths=find_near_paths(missing_paths, {key: sources[key] for key in hub_names - hub_cached}),
        is_offline=is_hub_offline(),
        hub_cached=hub_cached,
        unreachable_hub=_unreachable_hub(hub_names - hub_cached),
        is_wandb_logged_in=is_wandb_logged_in(),
        weights=_weights(experiment),
        size=probe_model_size(experiment, model),
        missing_code=tuple(find_missing_code(experiment, experiment_file)),
        unreachable_weights=_unreachable_weights(model),
        unfit_sources=(*find_unfit_models(experiment, model, others), *find_unfit_sources(experiment, data)),
    )


def probe_machine() -> Machine:
    """Returns this computer's cores (those this process may use), GPUs and memory."""
    threads, num_gpus = os.environ.get("OMP_NUM_THREADS", ""), count_gpus()
    return Machine(
        host=socket.gethostname(),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        num_gpus=num_gpus,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in os.sysconf_names else None,
        num_threads=int(threads) if threads.isdigit() and int(threads) > 0 else None,
        python=sys.executable,
        python_version=sys.version.split()[0],
        gpus=probe_gpus(num_gpus),
    )


def count_gpus() -> int:
    """Returns the NVIDIA GPUs that a training would see, without torch: CUDA_VISIBLE_DEVICES, the driver's list, or nvidia-smi."""
    if DRIVER_GPUS.is_dir():
        present = len(list(DRIVER_GPUS.iterdir()))
    elif shutil.which("nvidia-smi"):
        present = sum(line.startswith("GPU ") for line in _output(["nvidia-smi", "-L"]).splitlines())
    else:
        present = 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        return present
    devices = [device.strip() for device in visible.split(",")]
    hidden_from = next((i for i, device in enumerate(devices) if device in ("", "-1")), len(devices))  # CUDA stops reading at the first invalid one
    return min(present, hidden_from)


def probe_code(folder: Path) -> Code:
    """Returns the commit of the git repository around a folder, and whether its tracked files were changed."""
    answer = _output(["git", "-C", str(folder), "rev-parse", "HEAD", "--show-toplevel"]).split("\n")
    if len(answer) < 2:
        return Code()
    dirty = bool(_output(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"]))
    return Code(commit=answer[0], root=Path(answer[1]), is_dirty=dirty)


def read_diff(code: Code) -> str:
    """Returns the changes of tracked files against the commit."""
    return _output(["git", "-C", str(code.root), "diff", "--binary", "HEAD"]) if code.root else ""


def read_untracked(code: Code) -> list[str]:
    """Returns the untracked files that git does not ignore, relative to the repository."""
    return _output(["git", "-C", str(code.root), "ls-files", "--others", "--exclude-standard"]).splitlines() if code.root else []


def probe_versions() -> dict[str, str]:
    """Returns the versions of the reported packages that are installed; imports none of them."""
    versions = {}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def missing_training_packages() -> list[str]:
    """Returns what a training imports and this python does not have."""
    versions = probe_versions()
    return [name for name in TRAINING_PACKAGES if name not in versions]


def probe_place(path: Path) -> Place:
    """Returns whether a run directory can be made there, by looking at the nearest folder that exists."""
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        usage = shutil.disk_usage(nearest)
        free = usage.free if usage.total else None  # /proc and its like know nothing of space
        is_empty = not path.is_dir() or not any(path.iterdir())
    except OSError:
        free, is_empty = None, False
    return Place(path, path.exists(), is_empty, nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK), free)


def derive_port(run_id: str) -> int:
    """Returns the rendezvous port that a run id stands for; the same on every node, below the ephemeral range."""
    return _FIRST_PORT + zlib.crc32(run_id.encode()) % _NUM_PORTS


def free_port(preferred: int, num_tries: int = 20) -> int | None:
    """Returns `preferred` or the first free port after it (deterministic); None if all of them are taken."""
    for port in range(preferred, preferred + num_tries):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", port))
            except OSError:
                continue
            return port
    return None


def _weights(experiment: Experiment) -> Source | None:
    return parse_source(experiment.model.weights, "model.weights") if experiment.model.weights is not None else None


def _missing_paths(experiment: Experiment, model: Source, data: Source, others: Mapping[str, Source]) -> dict[str, Path]:
    named: dict[str, Source | None] = {"model.source": model, "data.source": data, "model.weights": _weights(experiment)}
    named |= others
    paths = {key: source.path for key, source in named.items() if isinstance(source, LocalPath)}
    if isinstance(data, LocalPath) and data.path.is_dir():
        splits = {f"data.splits.{name}": value for name, value in experiment.data.splits.model_dump().items()}
        files = {key: file_of_split(data.path, value, experiment.data) for key, value in splits.items() if value and not _is_pattern(value)}
        are_files = any(files.values())  # then all of them are, and none is a name of the hub's
        paths |= {key: file or data.path / splits[key] for key, file in files.items() if are_files or Path(splits[key]).suffix}
    return {key: path for key, path in paths.items() if not path.exists()}


def _is_pattern(split: str) -> bool:
    """Returns whether a split may be a shell pattern of paths, as an audio_folder has; the ranks say if nothing matches it."""
    return any(letter in split for letter in "*?[")


def _hub_cached(experiment: Experiment, model: Source, data: Source, others: Mapping[str, Source]) -> frozenset[str]:
    """Returns the keys whose hub name needs no hub: it is in the hub's cache, or what was made of it is prepared."""
    cached = {
        "model.source": isinstance(model, HubName) and is_hub_cached(model, "models"),
        "data.source": isinstance(data, HubName) and (read_prepared(experiment) is not None or is_hub_cached(data, "datasets")),
    }
    cached |= {key: isinstance(source, HubName) and is_hub_cached(source, _kind_on_hub(key)) for key, source in others.items()}
    return frozenset(key for key, is_cached in cached.items() if is_cached)


def _kind_on_hub(key: str) -> Literal["models", "datasets"]:
    return "datasets" if key.endswith("data.source") else "models"


def _unreachable_hub(named: set[str]) -> str | None:
    """Returns the hub's URL if something is needed of it and it does not answer."""
    endpoint = hub_endpoint()
    return endpoint if named and not is_hub_offline() and not is_reachable(endpoint) else None


def _unreachable_weights(model: Source) -> str | None:
    """Returns the server that torchvision's weights come from, if they are wanted, not in torch's cache, and it does not answer."""
    if not isinstance(model, TorchvisionModel) or model.weights is None or has_torchvision_weights(model.name):
        return None
    return None if is_reachable(WEIGHTS_SERVER) else WEIGHTS_SERVER


def is_wandb_logged_in() -> bool:
    """Returns whether the W&B client would find a key, which is not read into memory where it can be helped, and never shown."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return host in Path(os.environ.get("NETRC") or "~/.netrc").expanduser().read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _output(argv: list[str]) -> str:
    """Returns a command's stdout without the last newline; empty if it fails or is not there."""
    try:
        return subprocess.run(argv, capture_output=True, check=True, timeout=20, text=True, errors="replace").stdout.rstrip("\n")
    except (OSError, subprocess.SubprocessError):
        return ""
