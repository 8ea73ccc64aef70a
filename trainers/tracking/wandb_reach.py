"""Says whether W&B can be reached from here, and so where a run's rows go."""

from __future__ import annotations

import netrc
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from launch.config.run_dir import read_json
from trainers.tracking.wandb_files import run_files

Mode = Literal["online", "offline"]

REACH_S = 2.0
"""How long a connection to the W&B server may take before the run is kept offline."""


def choose_mode(wanted: str, folder: Path, environ: Mapping[str, str]) -> Mode:
    """Returns where the rows go. `auto` is online if there is a login and the server answers, and no offline part is still to be sent before."""
    if wanted != "auto":
        return "online" if wanted == "online" else "offline"
    asked = environ.get("WANDB_MODE")
    if asked in ("online", "offline"):
        return "online" if asked == "online" else "offline"
    url = server_url(environ)
    return "online" if not unsent_parts(folder) and has_login(url, environ) and server_answers(url) else "offline"


def is_wanted(mode: str, environ: Mapping[str, str]) -> bool:
    """Returns whether W&B is on: `auto` leaves it to W&B's own variables."""
    is_off = environ.get("WANDB_MODE") == "disabled" or environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes")
    return mode != "disabled" and not (mode == "auto" and is_off)


def unsent_parts(folder: Path) -> list[Path]:
    """Returns the offline .wandb files of a run that `fullrank sync` has not sent yet, oldest first."""
    sent = sent_parts(folder)
    return [path for path in run_files(folder) if is_offline(path) and sent.get(path.parent.name) != path.stat().st_size]


def sent_parts(folder: Path) -> dict[str, Any]:
    """Returns {folder of an offline part: its size when it was sent}, as `fullrank sync` has noted it."""
    parts = (read_json(folder / "synced.json") or {}).get("parts", {})
    return parts if isinstance(parts, dict) else {}


def is_offline(path: Path) -> bool:
    """Returns whether a .wandb file was written offline."""
    return path.parent.name.startswith("offline-")


def server_url(environ: Mapping[str, str]) -> str:
    """Returns the address of the W&B server: the variable's, that of `wandb login --host`, or the public one."""
    return environ.get("WANDB_BASE_URL") or _configured_url(environ) or "https://api.wandb.ai"


def has_login(url: str, environ: Mapping[str, str]) -> bool:
    """Returns whether there is a key for this server: in the environment, or where `wandb login` keeps it."""
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urllib.parse.urlsplit(url).hostname or ""
    for path in filter(None, (environ.get("NETRC"), "~/.netrc", "~/_netrc")):
        try:
            if host in netrc.netrc(os.path.expanduser(path)).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def server_answers(url: str) -> bool:
    """Returns whether the server, or the proxy on the way to it, takes a connection."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), timeout=REACH_S).close()
    except OSError:
        return False
    return True


def _configured_url(environ: Mapping[str, str]) -> str | None:
    """Returns base_url of W&B's own settings file, an ini file."""
    path = Path(environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser() / "settings"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "base_url":
            return value.strip()
    return None
