"""The port that the ranks of a launch meet at, which no other launch on the machine takes in the meantime."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from launch.probe import free_port


@contextmanager
def held_port(preferred: int, num_tries: int = 20) -> Iterator[int | None]:
    """Yields `preferred` or the first free port after it, for this launcher alone while the block lasts; None if all of them are taken.

    A port that was free when a launcher looked is still free seconds later, when its rank 0 listens there, unless a second
    launcher saw the same. So each claims a name first, in Linux's abstract namespace: a socket that ends with its process.
    """
    for port in range(preferred, preferred + num_tries):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as claim:
            try:
                claim.bind(f"\0fullrank-port-{port}")
            except OSError:
                continue
            if free_port(port, num_tries=1) is not None:
                yield port
                return
    yield None
