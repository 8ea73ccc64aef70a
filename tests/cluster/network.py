"""The network of the cluster: one namespace a node, all on one bridge, which is the head's way to them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from tests.cluster.configuration import BRIDGE, HEAD_ADDRESS, NUMBER, Node


def make_network(nodes: Sequence[Node]) -> None:
    """Makes the bridge, and for each node a namespace with a cable (a veth pair) into it."""
    _ip("link add name", BRIDGE, "type bridge")
    _ip("addr add", f"{HEAD_ADDRESS}/24", "dev", BRIDGE)
    _ip("link set", BRIDGE, "up")
    for node in nodes:
        namespace = namespace_of(node)
        _ip("netns add", namespace)
        _ip("link add", namespace, "type veth peer name eth0 netns", namespace)
        _ip("link set", namespace, "master", BRIDGE, "up")
        _ip("-n", namespace, "addr add", f"{node.address}/24", "dev eth0")
        _ip("-n", namespace, "link set lo up")
        _ip("-n", namespace, "link set eth0 up")


def remove_network(nodes: Sequence[Node]) -> None:
    """Removes what `make_network` makes, as much of it as is there."""
    for node in nodes:
        _ip("netns delete", namespace_of(node), check=False)
    _ip("link delete", BRIDGE, check=False)


def set_cable(node: Node, is_plugged: bool) -> None:
    """Plugs the network cable of a node in, or pulls it."""
    _ip("-n", namespace_of(node), "link set eth0", "up" if is_plugged else "down")


def processes_on(node: Node) -> list[int]:
    """Returns the processes in a node's namespace: its slurmd and all of its jobs."""
    return [int(pid) for pid in _ip("netns pids", namespace_of(node), check=False).split()]


def namespace_of(node: Node) -> str:
    """Returns the name of a node's network namespace, which is also the name of its cable's end on the bridge."""
    return f"fr{NUMBER}{node.name}"


def _ip(*words: str, check: bool = True) -> str:
    argv = ["ip", *(part for word in words for part in word.split())]
    ended = subprocess.run(argv, capture_output=True, text=True)
    if check and ended.returncode:
        raise OSError(f"{' '.join(argv)}: {ended.stderr.strip()}")
    return ended.stdout
