"""python -m tests.cluster install | up | down | shell: the test cluster, for a person to try."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cluster.cluster import FOLDER, running, take_down, timed_boot
from tests.cluster.packages import install_packages, why_not
from tests.cluster.processes import BootError


def main(verb: str) -> int:
    """Does one of the four things, and returns the exit code."""
    if verb == "install":
        return install()
    if verb == "up":
        return up()
    if verb == "down":
        take_down()
    elif verb == "shell":
        return shell()
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


def install() -> int:
    """Installs what the cluster is made of."""
    if os.geteuid():
        print("a cluster needs root: sudo make", file=sys.stderr)
        return 3
    install_packages()
    return 0


def up() -> int:
    """Boots the cluster unless it is there, and says how to use it."""
    reason = why_not()
    if reason:
        print(f"no cluster here: {reason}", file=sys.stderr)
        return 3
    if running() is None:
        try:
            cluster, seconds = timed_boot()
        except BootError as error:
            print(f"the cluster did not come up: {error}", file=sys.stderr)
            return 1
        print(f"{len(cluster.nodes)} nodes in {seconds:.1f} s", file=sys.stderr)
    print(f"export SLURM_CONF={FOLDER}/slurm.conf")
    return 0


def shell() -> int:
    """Opens a shell on the login node; the cluster goes when the shell ends."""
    code = up()
    if code:
        return code
    try:
        print("sinfo, sbatch, squeue and fullrank submit work in this shell; leaving it takes the cluster down", file=sys.stderr)
        subprocess.run([os.environ.get("SHELL", "bash")], env=os.environ | {"SLURM_CONF": f"{FOLDER}/slurm.conf"})
    finally:
        take_down()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 else ""))
