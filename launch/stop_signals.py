"""The signals that ask an agent to stop, and how long a stop may take."""

from __future__ import annotations

import math
import os
import signal

from launch.config.errors import ConfigError, Problem

PASSED_ON = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""Requests to stop; each is passed on once, however often it comes."""


def heeded_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that ask this process to stop: SIGHUP too (the terminal is gone), unless nohup has it ignored."""
    return PASSED_ON if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*PASSED_ON, signal.SIGHUP)


def passed_on_as(number: signal.Signals) -> signal.Signals:
    """Returns the signal that the processes get: SIGTERM for a SIGHUP, which they need not know; the others as they came."""
    return signal.SIGTERM if number == signal.SIGHUP else number


def stop_deadline_s() -> float | None:
    """Returns how long after a request to stop everything ends, whatever it is doing: FULLRANK_STOP_DEADLINE in seconds; None: no limit.

    Raises:
        ConfigError: it is no number of seconds.
    """
    text = os.environ.get("FULLRANK_STOP_DEADLINE", "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ConfigError(
            Problem(f"{text!r} is no number of seconds", "environment", "FULLRANK_STOP_DEADLINE", "0 or more", "unset it for no deadline")
        )
    return seconds
