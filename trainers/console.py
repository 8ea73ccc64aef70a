"""What rank 0 shows while it trains: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

_SHOWN = ("loss", "lr", "gradient_norm", "samples_per_second")


class Console:
    """Rank 0's words on stderr; the other ranks stay silent."""

    def __init__(self, is_main: bool) -> None:
        width = os.environ.get("FULLRANK_TERMINAL_WIDTH")
        self._is_main, self._width = is_main, int(width) if width else None
        self._on_terminal = is_main and (self._width is not None or sys.stderr.isatty()) and self._width != 0  # 0: a debugger has the terminal
        self._bar: Any = None
        self._total = 0

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._bar is not None:
            tqdm.write(text, file=sys.stderr)
        elif self._is_main:
            print(text, file=sys.stderr, flush=True)

    def start(self, step: int, total_steps: int) -> None:
        """Shows the bar, with rate and time left, from `step` on."""
        self._total = total_steps
        if self._on_terminal:
            self._bar = tqdm(
                total=total_steps,
                initial=step,
                ncols=self._width,
                unit=" steps",
                desc="train",
                dynamic_ncols=self._width is None,
                mininterval=0.5,
                smoothing=0.05,
            )

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def show(self, record: Mapping[str, Any]) -> None:
        """Shows a metrics record: training on the bar (or as a line), everything else as a line."""
        if record["split"] == "train" and self._bar is not None:
            self._bar.set_postfix_str(f"loss {record['loss']:.4f}", refresh=False)
            return
        numbers = {name: value for name, value in record.items() if isinstance(value, float) and (record["split"] != "train" or name in _SHOWN)}
        text = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items() if name not in ("time", "epoch", "seconds"))
        self.say(f"step {record['step']}/{self._total}  {record['split']:<10}  {text}")

    def stop(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
