"""Whether the processes of a launch have met: rank 0 listens on their port from then on."""

from __future__ import annotations

from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING = "0A"  # TCP_LISTEN of <net/tcp_states.h>


def is_listening(port: int) -> bool | None:
    """Returns whether some process here listens on a TCP port; None: this system does not say."""
    tables = [text for path in _TABLES if (text := _read(path)) is not None]
    if not tables:
        return None
    wanted = f":{port:04X}"
    rows = [line.split() for text in tables for line in text.splitlines()[1:]]
    return any(row[3] == _LISTENING and row[1].endswith(wanted) for row in rows if len(row) > 3)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
