from __future__ import annotations

import socket

from launch.ports import held_port
from launch.probe import derive_port

PORT = derive_port("tests of ports")


def test_two_launches_at_once_hold_two_ports():
    with held_port(PORT) as first, held_port(PORT) as second:
        assert first is not None
        assert second is not None
        assert PORT <= first < second


def test_a_port_is_given_back_at_the_end_of_the_block():
    with held_port(PORT) as first:
        pass
    with held_port(PORT) as second:
        assert second == first


def test_no_port_is_none_whether_it_is_held_or_listened_on():
    with held_port(PORT) as port, held_port(port, num_tries=1) as other:
        assert other is None
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with held_port(taken.getsockname()[1], num_tries=1) as port:
            assert port is None
