"""Where a plan is carried out: one module a backend, imported on use."""

from __future__ import annotations

BACKENDS: dict[str, str] = {"local": "launch.backends.local"}
"""name -> module with `start(plan, probe)` and `resume(plan, probe)`."""
