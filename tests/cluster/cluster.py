"""Boots the cluster, answers where it is, and takes it all down."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import configuration, network
from tests.cluster.configuration import ACCOUNTS, DATABASE_PORT, Node
from tests.cluster.processes import end, last_lines, living, start_daemon, succeeds, wait_until

FOLDER = Path(tempfile.gettempdir()) / f"fullrank-cluster{configuration.NUMBER or ''}"
"""Everything of the cluster."""

NUM_NODES = 3
os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    folder: Path
    nodes: tuple[Node, ...]
    head: str = field(default_factory=socket.gethostname)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a shell a login node."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def command(self, *argv: str, check: bool = True, timeout_s: float = 60) -> str:
        """Returns the output of a command on the login node."""
        ended = subprocess.run(argv, env=os.environ | self.environment, capture_output=True, text=True, timeout=timeout_s)
        if check and ended.returncode:
            raise AssertionError(f"{' '.join(argv)}: {ended.returncode}\n{ended.stdout}{ended.stderr}\n{last_lines(self.folder)}")
        return ended.stdout

    def set_cable(self, node: str, is_plugged: bool) -> None:
        """Plugs the network cable of a node in, or pulls it."""
        network.set_cable(self._node(node), is_plugged)

    def restart_node(self, node: str) -> None:
        """Starts a node's slurmd again, after it was killed."""
        _start_slurmd(self.folder, self._node(node))

    def kill_node(self, node: str) -> None:
        """Ends slurmd and every process on a node, as a crash would."""
        end(network.processes_on(self._node(node)), patience_s=0.0)

    @contextlib.contextmanager
    def hidden(self, node: str, folder: Path) -> Iterator[None]:
        """Hides what is in a folder from one node, as where a file system is not mounted there."""
        pid = next(pid for pid, name in living(self.folder).items() if name == f"slurmd-{node}")
        inside = ["nsenter", "--mount", "--target", str(pid)]
        subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", "mode=0755,ro", "none", str(folder)], check=True)
        try:
            yield
        finally:
            subprocess.run([*inside, "umount", str(folder)], check=True)

    def _node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


def running() -> Cluster | None:
    """Returns the cluster that is up; None: there is none."""
    cluster = Cluster(FOLDER, configuration.make_nodes(NUM_NODES))
    return cluster if living(FOLDER) and succeeds(["scontrol", "ping"], **cluster.environment) else None


def boot() -> Cluster:
    """Returns a new cluster, all nodes idle; what an earlier one left is taken down first.

    Raises:
        BootError: with every log.
    """
    take_down()
    cluster = Cluster(FOLDER, configuration.make_nodes(NUM_NODES))
    try:
        _write_files(cluster)
        network.make_network(cluster.nodes)
        _start(cluster)
    except BaseException:
        take_down()
        raise
    return cluster


def take_down() -> None:
    """Ends every process of the cluster, and removes its network and folder."""
    nodes = configuration.make_nodes(NUM_NODES)
    alive = living(FOLDER)
    if alive and succeeds(["scontrol", "ping"], SLURM_CONF=str(FOLDER / "slurm.conf")):
        succeeds(["scancel", "--full", "--signal=KILL", "--user", "root"], SLURM_CONF=str(FOLDER / "slurm.conf"))
    end([pid for node in nodes for pid in network.processes_on(node)], patience_s=0.5)
    end([pid for pid, name in alive.items() if name != "mariadbd"])
    end([pid for pid, name in alive.items() if name == "mariadbd"])
    network.remove_network(nodes)
    shutil.rmtree(FOLDER, ignore_errors=True)


def _write_files(cluster: Cluster) -> None:
    folder = cluster.folder
    for name in ("log", "state", "database", *(f"spool/{node.name}" for node in cluster.nodes)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    texts = {
        "slurm.conf": configuration.slurm_conf(folder, cluster.head, cluster.nodes, os.cpu_count() or 1),
        "slurmdbd.conf": configuration.slurmdbd_conf(folder),
        "gres.conf": configuration.gres_conf(folder),
        **{f"gpu{number}": "" for number in range(configuration.GPUS_PER_NODE)},
        "cgroup.conf": configuration.cgroup_conf(),
        "hosts": configuration.hosts(cluster.head, cluster.nodes),
        "database.sql": configuration.database_sql(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "slurmdbd.conf").chmod(0o600)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)


def _start(cluster: Cluster) -> None:
    """Starts the daemons, each as soon as those it needs answer."""
    folder, conf = cluster.folder, cluster.environment
    _start_munge(folder)
    _start_database(folder)
    start_daemon(folder, "slurmdbd", ["slurmdbd", "-D"], **conf)
    wait_until(folder, "slurmdbd", lambda: succeeds(["sacctmgr", "-n", "show", "cluster"], **conf))
    names = ",".join(ACCOUNTS)
    for words in ("add cluster fullrank", f"add account {names} Cluster=fullrank", f"add user root Account={names} DefaultAccount={ACCOUNTS[0]}"):
        succeeds(["sacctmgr", "-i", *words.split()], **conf)
    start_daemon(folder, "slurmctld", ["slurmctld", "-D"], **conf)
    for node in cluster.nodes:
        _start_slurmd(folder, node)
    wait_until(
        folder, "all nodes idle", lambda: cluster.command("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split() == ["idle"] * NUM_NODES
    )


def _start_munge(folder: Path) -> None:
    files = {"socket": "munge.socket", "key-file": "munge.key", "log-file": "log/munged.log", "pid-file": "munged.pid", "seed-file": "munge.seed"}
    start_daemon(folder, "munged", ["munged", "--foreground", "--force", *(f"--{option}={folder / name}" for option, name in files.items())])
    wait_until(folder, "munge", lambda: succeeds(["munge", f"--socket={folder}/munge.socket", "--no-input"]))


def _start_database(folder: Path) -> None:
    data, sock = folder / "database", folder / "mariadb.socket"
    options = ["--no-defaults", f"--datadir={data}", "--user=root"]
    subprocess.run(["mariadb-install-db", *options, "--skip-test-db", "--auth-root-authentication-method=socket"], check=True, capture_output=True)
    listening = [f"--socket={sock}", "--bind-address=127.0.0.1", f"--port={DATABASE_PORT}", f"--pid-file={folder}/mariadbd.pid"]
    quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--skip-name-resolve"]
    start_daemon(folder, "mariadbd", ["mariadbd", *options, *listening, *quick, f"--init-file={folder}/database.sql"])
    wait_until(folder, "mariadb", lambda: _listens("127.0.0.1", DATABASE_PORT))


def _start_slurmd(folder: Path, node: Node) -> None:
    """A UTS namespace gives the node its own host name, a mount namespace its own /etc/hosts."""
    script = 'hostname "$1" && mount --bind "$2/hosts" /etc/hosts && exec slurmd -D -N "$1"'
    inside = ["unshare", "--uts", "--mount", "bash", "-c", script, "slurmd", node.name, str(folder)]
    argv = ["ip", "netns", "exec", network.namespace_of(node), *inside]
    start_daemon(folder, f"slurmd-{node.name}", argv, SLURM_CONF=str(folder / "slurm.conf"))


def _listens(address: str, port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((address, port)) == 0


def timed_boot() -> tuple[Cluster, float]:
    """Returns a new cluster, and the seconds it took."""
    started = time.monotonic()
    return boot(), time.monotonic() - started
