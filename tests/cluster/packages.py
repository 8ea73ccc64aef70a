"""The Debian packages the cluster is made of."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = {"slurm-wlm": "slurmctld", "slurmdbd": "slurmdbd", "mariadb-server": "mariadbd", "munge": "munged", "iproute2": "ip"}
"""package -> the program that shows it is there."""

_NO_DAEMONS = Path("/usr/sbin/policy-rc.d")
"""Says to Debian's packages whether their daemons may start (invoke-rc.d)."""


def missing_packages() -> list[str]:
    """Returns the packages that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [package for package, program in PACKAGES.items() if shutil.which(program, path=path) is None]


def why_not() -> str | None:
    """Returns why no cluster can be booted here; None: it can."""
    if os.geteuid():
        return "it needs root (network namespaces, several slurmd)"
    missing = missing_packages()
    if not missing and subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True).returncode:
        return "this machine lets root make no namespaces (a container without CAP_SYS_ADMIN)"
    return f"not installed: {', '.join(missing)} (`make test-slurm` installs them)" if missing else None


def install_packages() -> None:
    """Installs what is missing, without starting the packages' own daemons."""
    missing = missing_packages()
    if not missing:
        return
    is_ours = not _NO_DAEMONS.exists()
    if is_ours:
        _NO_DAEMONS.write_text("#!/bin/sh\nexit 101\n")
        _NO_DAEMONS.chmod(0o755)
    try:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
        subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing], check=True, env=environment)
    finally:
        if is_ours:
            _NO_DAEMONS.unlink()
