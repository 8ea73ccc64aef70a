"""What is known of the hub without its client: whether it is switched off, reachable, and what its cache holds."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from launch.config.sources import HubName

RepositoryKind = Literal["models", "datasets"]

DEFAULT_ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 5.0
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")

_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY")


def is_hub_offline(environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether the hub is switched off, by the variables that huggingface_hub and transformers read."""
    return any(environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def hub_endpoint(environment: Mapping[str, str] = os.environ) -> str:
    """Returns the URL of the hub: HF_ENDPOINT, or the public one."""
    return (environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def hub_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of everything that the hub's clients keep: HF_HOME, or huggingface in the user's cache folder."""
    return Path(environment.get("HF_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface").expanduser()


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of downloaded repositories."""
    return Path(environment.get("HF_HUB_CACHE") or hub_home(environment) / "hub").expanduser()


def is_hub_cached(name: HubName, kind: RepositoryKind, environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether the cache holds a model's configuration and weights, or any file of a data set.

    Layout of huggingface_hub's cache: <cache>/models--OWNER--NAME/snapshots/<commit>/, with links to blobs that may be gone.
    """
    repository = hub_cache(environment) / f"{kind}--{name.name.replace('/', '--')}"
    for snapshot in (repository / "snapshots").glob("*"):
        files = [path for path in snapshot.rglob("*") if path.is_file()]
        if kind == "datasets" and files:
            return True
        if any(path.name == "config.json" for path in files) and any(path.suffix in WEIGHT_SUFFIXES for path in files):
            return True
    return False


def torch_home() -> Path:
    """Returns the folder of torch's own cache, by torch.hub's rules."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()


def has_torchvision_weights(name: str) -> bool:
    """Returns whether torch's cache holds published weights of a model of torchvision."""
    return any((torch_home() / "hub" / "checkpoints").glob(f"{name}[-_]*.pth"))


def is_reachable(url: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Returns whether the host of `url` accepts a connection; behind a proxy that cannot be asked, so yes."""
    if any(os.environ.get(name) for name in _PROXY_VARIABLES):
        return True
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname or "", address.port or (80 if address.scheme == "http" else 443)), timeout_s):
            return True
    except OSError:
        return False
