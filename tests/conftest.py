"""Signals as a person's shell leaves them: nohup and a script's `&` leave some ignored, and children inherit that."""

from __future__ import annotations

import signal

for ignored in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL)
