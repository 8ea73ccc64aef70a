"""Lengths of training that carry their unit: `500 steps`, `3 epochs`, `30 minutes`, `10 %`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

Unit = Literal["steps", "epochs", "minutes", "%"]
_UNITS: dict[str, Unit] = {
    "step": "steps",
    "steps": "steps",
    "epoch": "epochs",
    "epochs": "epochs",
    "minute": "minutes",
    "minutes": "minutes",
    "%": "%",
}
MAX_AMOUNT = 10**9
_AMOUNT = r"([0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)"
_PATTERN = re.compile(rf"\s*{_AMOUNT}\s*(%|[A-Za-z]+)\s*")


@dataclass(frozen=True)
class Duration:
    """An amount of training; `steps` are optimizer steps, `%` is of the whole training."""

    amount: float
    unit: Unit

    def __str__(self) -> str:
        amount = f"{self.amount:g}" if self.amount < 1e6 or self.amount % 1 else str(int(self.amount))
        singular = self.amount == 1 and self.unit != "%"
        return f"{amount} {self.unit.rstrip('s') if singular else self.unit}"

    def in_steps(self, steps_per_epoch: int, total_steps: int | None = None) -> int:
        """Returns this length in optimizer steps, rounded up (down for `%`).

        Raises:
            ValueError: for minutes, which have no length in steps, and for `%` of an unknown total.
        """
        if self.unit == "steps":
            return math.ceil(self.amount)
        if self.unit == "epochs":
            return math.ceil(round(self.amount * steps_per_epoch, 6))
        if self.unit == "%" and total_steps is not None:
            return math.floor(self.amount * total_steps / 100)
        raise ValueError(f"{self} has no fixed number of optimizer steps")


def parse_duration(text: object, units: tuple[Unit, ...]) -> Duration:
    """Returns the Duration that `text` says, e.g. `500 steps`.

    Raises:
        ValueError: no number, no unit, or a unit that is not one of `units`.
    """
    if isinstance(text, Duration):
        text = str(text)
    example = f"write it with its unit, e.g. '{'10' if units[0] == '%' else '3'} {units[0]}'"
    allowed = ", ".join(units)
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a duration: {example} (units: {allowed})")
    unit = _UNITS.get(match[2].lower())
    if unit is None or unit not in units:
        raise ValueError(f"{text!r} has the unit {match[2]!r}, which does not fit here (units: {allowed})")
    amount = float(match[1].replace("_", ""))
    if amount <= 0 and unit != "%":
        raise ValueError(f"{text!r} is no length: the amount must be above 0")
    if amount > MAX_AMOUNT:
        raise ValueError(f"{text!r} is too long: at most {MAX_AMOUNT} {unit}")
    if unit == "steps" and amount % 1:
        raise ValueError(f"{text!r} is not a whole number of steps")
    return Duration(amount, unit)


@dataclass(frozen=True)
class Units:
    """The units a Duration field accepts, as pydantic metadata."""

    units: tuple[Unit, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: parse_duration(value, self.units),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        names = [name for name, unit in _UNITS.items() if unit in self.units]
        return {"type": "string", "pattern": rf"^\s*{_AMOUNT}\s*({'|'.join(names)})\s*$", "examples": [f"3 {unit}" for unit in self.units]}


TrainLength = Annotated[Duration, Units(("steps", "epochs"))]
Interval = Annotated[Duration, Units(("steps", "epochs"))]
Warmup = Annotated[Duration, Units(("%", "steps", "epochs"))]
