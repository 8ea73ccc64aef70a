"""Starts the processes of one node, passes signals on, keeps their logs, and finds the first failure."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from launch.config.errors import EXIT_CONFIG, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED
from launch.config.lock import HEARTBEAT_S
from launch.config.run_dir import Attempt, write_atomic, write_json
from launch.config.stop_file import read_stop_file
from launch.failures import Failure, failure_of_exit, read_failures
from launch.meeting import is_listening
from launch.members import Member, Running, start_member
from launch.processes import adopt_orphans, descendants, end_descendants
from launch.stop_signals import heeded_signals, passed_on_as, stop_deadline_s

GRACE_S = 2.0
"""What the other ranks get between SIGTERM and SIGKILL once one has failed: time for their own reports."""

REMIND_S = 30.0
"""After this long a script that heeds no signal is spoken of."""

_DRAIN_S = 0.5
_LOOK_S = 0.1  # a rendezvous stays open for the whole training


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Args:
        exit_code: 0 done, 1 failed, 2 bad input, 75 stopped and resumable, 130 interrupted and resumable; a script's own.
        codes: what each member returned; negative: the signal that ended it.
        failure: the first failure.
        num_others: failures that followed it.
        heard: requests to stop, in their order.
    """

    exit_code: int
    codes: tuple[int, ...]
    failure: Failure | None = None
    num_others: int = 0
    heard: tuple[signal.Signals, ...] = ()


def run_members(
    members: Sequence[Member],
    attempt: Attempt,
    is_script: bool = False,
    beat: Callable[[], None] | None = None,
    meeting_port: int | None = None,
) -> Outcome:
    """Runs the processes until all have ended, and leaves none behind; writes logs, and failure.json if one failed.

    Must be called from the main thread of a process without other threads.

    Args:
        is_script: somebody's own program: stop signals do to it what they always do, and its exit code is passed through.
        beat: called every few seconds, to show that the run lives.
        meeting_port: where rank 0, here, is to wait for the others; a word is said if it never does.

    Raises:
        ConfigError: FULLRANK_STOP_DEADLINE is no number of seconds.
    """
    agent = _Agent(members, attempt, is_script, beat, meeting_port, stop_deadline_s())
    outcome = agent.run()
    if outcome.failure:
        try:
            write_json(attempt.failure, outcome.failure.as_dict())
        except OSError as error:
            _say(f"warning: {attempt.failure} cannot be written: {error.strerror}")
    return outcome


@dataclass
class _Agent:
    """One loop over pipes, signals and deadlines; no threads, so that forking is safe."""

    members: Sequence[Member]
    attempt: Attempt
    is_script: bool = False
    beat: Callable[[], None] | None = None
    awaited_port: int | None = None
    deadline_s: float | None = None
    running: list[Running] = field(default_factory=list)
    heard: list[signal.Signals] = field(default_factory=list)
    kill_at: float | None = None
    beat_at: float | None = None
    remind_at: float | None = None
    has_failed: bool = False

    def run(self) -> Outcome:
        self.selector = selectors.DefaultSelector()
        self.beat_at = time.monotonic() if self.beat else None
        self.others = descendants(os.getpid())  # of the caller: not ours to end
        adopt_orphans(True)
        wakeup_read, wakeup_write = socket.socketpair()
        for end in (wakeup_read, wakeup_write):
            end.setblocking(False)
        self.selector.register(wakeup_read, selectors.EVENT_READ)
        self.heeded = heeded_signals()
        before = {number: signal.signal(number, lambda *_: None) for number in (*self.heeded, signal.SIGCHLD)}
        previous_fd = signal.set_wakeup_fd(wakeup_write.fileno(), warn_on_full_buffer=False)
        try:
            for member in self.members:
                self._start(member)
            while any(one.code is None for one in self.running):
                self._wait(wakeup_read)
            return self._outcome()
        finally:
            self._end_descendants(signal.SIGKILL)
            adopt_orphans(False)
            signal.set_wakeup_fd(previous_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self.selector.close()
            wakeup_read.close()
            wakeup_write.close()

    def _start(self, member: Member) -> None:
        running = start_member(member, self.is_script)
        self.running.append(running)
        if running.process.stdout is not None:
            self.selector.register(running.process.stdout, selectors.EVENT_READ, running)

    def _wait(self, wakeup: socket.socket) -> None:
        """Handles what comes next: output, a signal, the end of a process, or the deadline."""
        if self.awaited_port is not None and is_listening(self.awaited_port) is not False:
            self.awaited_port = None
        look_again = time.monotonic() + _LOOK_S if self.awaited_port is not None else None
        moments = [moment for moment in (self.kill_at, self.remind_at, self.beat_at, look_again) if moment is not None]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                for number in set(wakeup.recv(4096)) & set(self.heeded):
                    self._pass_on(signal.Signals(number))
            else:
                self._read(key.data)
        self._reap()
        if self.beat and self.beat_at is not None and time.monotonic() >= self.beat_at:
            self.beat_at = time.monotonic() + HEARTBEAT_S
            self.beat()
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            self.kill_at = None
            if not self.has_failed:
                _say("the deadline has passed: ending at once; the last checkpoint stays")
            self._end_all(signal.SIGKILL)
        if self.remind_at is not None and time.monotonic() >= self.remind_at:
            self.remind_at = None
            name = self.heard[0].name
            _say(f"still running {REMIND_S:.0f} s after {name}: what heeds no signal runs to its end; Ctrl-C (twice) ends it at once")

    def _read(self, running: Running) -> bool:
        """Takes one portion of output; returns whether more may come."""
        pipe = running.process.stdout
        if pipe is None or pipe.closed:
            return False
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return True
        if data:
            running.log.write(data)
            return True
        self.selector.unregister(pipe)
        pipe.close()
        return False

    def _reap(self) -> None:
        for one in self.running:
            if one.code is None and (code := one.process.poll()) is not None:
                one.code, one.ended = code, time.time()
                is_news = not (one.is_ours_to_end or self.has_failed)
                if is_news and code not in self._expected_codes(one):
                    self.has_failed = True
                if is_news and (self.has_failed or self._died_of_a_request(code)):
                    self._end_all(signal.SIGTERM)
                    self.kill_at = time.monotonic() + GRACE_S

    def _died_of_a_request(self, code: int) -> bool:
        """A rank without a handler is gone, and the others may wait for it in a collective."""
        return self.is_script and -code in self.heard

    def _expected_codes(self, one: Running) -> set[int]:
        codes = {EXIT_DONE, EXIT_STOPPED, EXIT_INTERRUPTED} | {-number for number in self.heard}
        if self.is_script:
            codes = {EXIT_DONE}
            if self.was_asked:
                codes |= {EXIT_STOPPED, EXIT_INTERRUPTED, *(-number for number in self.heard), *(128 + number for number in self.heard)}
        if one.member.rank is None and self.heard:
            codes.add(EXIT_FAILED)  # torchrun and accelerate turn every code into 1
        return codes

    def _terminal_is_lent(self) -> bool:
        return sys.stdin.isatty() and any(one.member.is_attached for one in self.running)

    @property
    def was_asked(self) -> bool:
        """Whether somebody asked for a stop."""
        return bool(self.heard) or self.attempt.stop_file.exists()

    def _pass_on(self, came: signal.Signals) -> None:
        number = passed_on_as(came)
        if number in self.heard:
            if number == signal.SIGINT and not self._terminal_is_lent():
                _say("ending at once; the last checkpoint stays")
                self._end_all(signal.SIGKILL, spare_outliving=False)
            return
        self.heard.append(number)
        if number == signal.SIGINT and self._terminal_is_lent():
            return  # it went to the process too, which is free to do with it what a debugger does
        again = " (Ctrl-C again: at once)" if number == signal.SIGINT else ""
        _say(f"{came.name}: {'passed on to the script' if self.is_script else 'finishing the step, saving, then stopping'}{again}")
        self.remind_at = time.monotonic() + REMIND_S if self.is_script else None
        if self.deadline_s is not None and self.kill_at is None:
            self.kill_at = time.monotonic() + self.deadline_s
        is_written = self._write_stop_file()
        for one in self.running:
            is_stock_launcher = one.member.rank is None and not self.is_script
            if one.code is None and not (is_stock_launcher and is_written):  # it would die of it or hurry its ranks, which read the file
                one.process.send_signal(number)

    def _write_stop_file(self) -> bool:
        """Says it in a file too: a rank that is still starting ignores signals, and must not miss this one. Returns whether it says so."""
        if read_stop_file(self.attempt.stop_file) not in (None, "preempted"):
            return True  # somebody has told the cause, and knows better than a signal
        try:
            write_atomic(self.attempt.stop_file, ("user" if signal.SIGINT in self.heard else "preempted") + "\n")
        except OSError as error:
            _say(f"warning: {self.attempt.stop_file} cannot be written: {error.strerror}")
            return False
        return True

    def _end_all(self, number: signal.Signals, spare_outliving: bool = True) -> None:
        for one in self.running:
            one.is_ours_to_end |= one.code is None
        self._end_descendants(number, spare_outliving)

    def _end_descendants(self, number: signal.Signals, spare_outliving: bool = True) -> int:
        """Stock launchers give each rank a session of its own, so sessions do not tell who is ours."""
        return end_descendants(os.getpid(), number, self.others, spare_outliving)

    def _outcome(self) -> Outcome:
        self._close_logs()
        codes = tuple(one.code if one.code is not None else EXIT_FAILED for one in self.running)
        if self.is_script:
            return self._script_outcome(codes)
        if not self.has_failed:
            if signal.SIGINT in self.heard and any(codes):
                return Outcome(EXIT_INTERRUPTED, codes)
            return Outcome(EXIT_DONE if not any(codes) else EXIT_INTERRUPTED if EXIT_INTERRUPTED in codes else EXIT_STOPPED, codes)
        failures = self._failures()
        return Outcome(EXIT_CONFIG if failures[0].kind == "configuration" else EXIT_FAILED, codes, failures[0], len(failures) - 1)

    def _script_outcome(self, codes: tuple[int, ...]) -> Outcome:
        """A script's own exit code is passed through; of several the first failure's, else the first that is not 0."""
        if self.has_failed:
            failures = self._failures()
            return Outcome(_shell_code(failures[0].exit_code or EXIT_FAILED), codes, failures[0], len(failures) - 1, tuple(self.heard))
        return Outcome(_shell_code(next((code for code in codes if code), EXIT_DONE)), codes, heard=tuple(self.heard))

    def _close_logs(self) -> None:
        """Ends what the processes left behind, and reads what is left in the pipes."""
        if self.awaited_port is not None and not self.has_failed and not self.heard:
            _say(
                f"warning: the {len(self.members)} processes never met (nothing listened on MASTER_PORT {self.awaited_port}): "
                "unless they met elsewhere, each trained a model of its own"
            )
        num_left = self._end_descendants(signal.SIGKILL)
        if self.is_script and num_left and not self.has_failed and not self.heard:
            _say(f"ended {num_left} process{'es' if num_left > 1 else ''} that the script left running")
        deadline = time.monotonic() + _DRAIN_S
        for one in self.running:
            while self._read(one) and time.monotonic() < deadline:
                self.selector.select(0.05)
            one.log.close()
            if one.process.stdout:
                one.process.stdout.close()  # what outlives its rank may still have it open

    def _failure_of_exit(self, one: Running) -> Failure | None:
        """A script's rank that was ended by the agent may have raised before, and what ended first may only have lost contact with it."""
        code = EXIT_FAILED if one.is_ours_to_end else one.code or EXIT_DONE
        failure = failure_of_exit(
            one.member.rank, socket.gethostname(), one.process.pid, one.ended, code, one.log.last_lines, self.is_script, one.member.is_attached
        )
        return None if one.is_ours_to_end and not (self.is_script and failure.exception) else failure

    def _failures(self) -> list[Failure]:
        """Returns the reports of the ranks, and one for each process that ended without any; the earliest first, what only lost contact last."""
        reported = read_failures(self.attempt, {one.member.rank: one.log.last_lines for one in self.running if one.member.rank is not None})
        told = {failure.rank for failure in reported} | ({None} if reported else set())
        silent = [
            failure
            for one in self.running
            if one.member.rank not in told and one.code not in self._expected_codes(one) and (failure := self._failure_of_exit(one))
        ]
        return sorted([*reported, *silent], key=lambda failure: (failure.kind == "lost_contact", failure.time))


def _shell_code(code: int) -> int:
    """Returns an exit code as a shell tells it: 128 + the signal that ended the process."""
    return code if code >= 0 else 128 - code


def terminal_width() -> int | None:
    """Returns the columns of the terminal behind stderr; None: there is none."""
    return shutil.get_terminal_size().columns if sys.stderr.isatty() else None


def _say(text: str) -> None:
    over_the_bar = "\r\x1b[K" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"{over_the_bar}fullrank: {text}", file=sys.stderr, flush=True)
