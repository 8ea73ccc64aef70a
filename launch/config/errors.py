"""The errors a person can cause, each with an exit code.

FullrankError (1)
├── ConfigError (2)       a file, a key, a value or an input that cannot be used
├── PreflightError (3)    a check failed before anything was started
└── StateError (2)        a run directory is not in the state that the command needs
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_PREFLIGHT = 3
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: stopped on warning, resumable
EXIT_INTERRUPTED = 130  # 128 + SIGINT


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and every way out of it.

    Args:
        what: what is wrong, with the value.
        where: `file:line`, or the words of the command line; None if it has no place.
        key: the dotted key, e.g. `train.global_batch_size`.
        allowed: what would be accepted.
        fix: what to type.
    """

    what: str
    where: str | None = None
    key: str | None = None
    allowed: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        names_key = bool(self.where and self.key and self.where.lstrip("'\"").startswith(f"{self.key}="))  # an override says its key
        place = ": ".join(part for part in (self.where, None if names_key else self.key) if part)
        text = f"{place}: {self.what}" if place else self.what
        for label, part in (("allowed", self.allowed), ("try", self.fix)):
            if part:
                text += f"\n    {label}: {part}"
        return text


class FullrankError(Exception):
    """An error that a person can mend; printed without a traceback."""

    exit_code = EXIT_FAILED

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem(p) if isinstance(p, str) else p for p in problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(FullrankError):
    exit_code = EXIT_CONFIG


class PreflightError(FullrankError):
    exit_code = EXIT_PREFLIGHT


class StateError(FullrankError):
    exit_code = EXIT_CONFIG


def suggest(name: str, names: Iterable[str]) -> str | None:
    """Returns the valid name nearest to `name`, before all the one that only its case tells apart; None if none is near."""
    valid = list(names)
    same = next((other for other in valid if other.casefold() == name.casefold()), None)
    near: Sequence[str] = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return same or (near[0] if near else None)


def install_words(extra: str) -> str:
    """Returns what to type for the packages of an extra: fullrank is on no package index, so it is installed from its sources."""
    return f"pip install '.[{extra}]' in the folder of fullrank's sources"
