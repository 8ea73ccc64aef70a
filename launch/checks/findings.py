"""What a check found: fine, worth knowing, or in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from launch.config.errors import Problem

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of a check's table.

    Args:
        check: what was looked at.
        text: what was found, in a few words.
        fix: what to type, where something should be done.
    """

    check: str
    status: Status
    text: str
    fix: str | None = None


def from_problems(check: str, problems: Sequence[Problem], when_fine: str) -> list[Finding]:
    """Returns a check's problems as findings, or the one that it has none."""
    return [Finding(check, "problem", *_split(problem)) for problem in problems] or [Finding(check, "ok", when_fine)]


def _split(problem: Problem) -> tuple[str, str | None]:
    place = ": ".join(part for part in (problem.where, problem.key) if part)
    allowed = f" (allowed: {problem.allowed})" if problem.allowed else ""
    return f"{place}: {problem.what}{allowed}" if place else f"{problem.what}{allowed}", problem.fix
