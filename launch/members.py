"""The processes of one node: what each is, and how one is started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.config.errors import EXIT_FAILED
from launch.rank_log import RankLog
from launch.stop_signals import PASSED_ON

_PLACES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_CONTRACT = ("FULLRANK_RUN_DIR", "FULLRANK_ATTEMPT", "FULLRANK_RESUME_FROM", "FULLRANK_STOP_FILE")
_OUTER_LAUNCHER = frozenset((*_PLACES, *_CONTRACT, "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"))
"""What the shell may say of another launcher; the members' place is for their own environment to say."""

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


@dataclass(frozen=True)
class Member:
    """One process to start; rank None: a stock launcher, which starts the ranks; folder None: it runs in this one.

    is_attached: the terminal is its own, input too; then nothing of what it says is kept.
    """

    rank: int | None
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    on_terminal: bool
    folder: Path | None = None
    is_attached: bool = False


@dataclass
class Running:
    """A started member, and how it ended."""

    member: Member
    process: subprocess.Popen[bytes]
    log: RankLog
    code: int | None = None
    ended: float = 0.0
    is_ours_to_end: bool = False  # ended by the agent, so its end is no news


def start_member(member: Member, is_script: bool) -> Running:
    """Starts a process that dies with this one; its output comes through a pipe that does not block, unless it is attached."""
    process = subprocess.Popen(
        list(member.argv),
        cwd=member.folder,
        env={name: value for name, value in os.environ.items() if name not in _OUTER_LAUNCHER} | dict(member.environment),
        stdin=None if member.is_attached else subprocess.DEVNULL,
        stdout=None if member.is_attached else subprocess.PIPE,
        stderr=None if member.is_attached else subprocess.STDOUT,
        start_new_session=not member.is_attached,  # a Ctrl-C on the terminal reaches the agent alone, which passes it on once
        preexec_fn=_child_setup(os.getpid(), ignore=member.rank is not None and not is_script),  # safe: the agent has no other thread
    )
    running = Running(member, process, RankLog(member.log, member.on_terminal))
    if member.is_attached:
        running.log.note("a debug run: what it said went to the terminal")
    else:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
    return running


def _child_setup(agent: int, ignore: bool) -> Callable[[], None]:
    """Returns what a child does before exec.

    A rank ignores the stop signals until its own handlers are there, so that an early one does not kill it. It dies with its
    agent. Stock launchers get neither handlers nor ignored signals from us: they bring their own, and ignored ones would stay ignored.
    """
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork

    def set_up() -> None:
        for number in PASSED_ON:
            signal.signal(number, signal.SIG_IGN if ignore else signal.SIG_DFL)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != agent:
            os._exit(EXIT_FAILED)  # the agent died before the line above

    return set_up
