from __future__ import annotations

import socket

import pytest

from launch.meeting import is_listening


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_port_is_listened_on_from_listen_to_close(family):
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert is_listening(port) is False
        listener.listen()
        assert is_listening(port) is True
    assert is_listening(port) is False


def test_system_that_does_not_say_is_not_taken_for_no(monkeypatch, tmp_path):
    monkeypatch.setattr("launch.meeting._TABLES", (tmp_path / "tcp",))
    assert is_listening(80) is None
