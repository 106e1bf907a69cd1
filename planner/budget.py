"""What a user may spend, and reading it from the command line."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from configs.errors import InputError, require

BudgetKind = Literal["time", "flops", "params", "tokens"]
_FLAGS = {
    "time": "--time",
    "flops": "--budget-flops",
    "params": "--params",
    "tokens": "--tokens",
}
_UNITS = {"time": "s", "flops": "FLOPs", "params": "parameters", "tokens": "tokens"}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One limit, the other quantities follow from it.

    kind: time (training wall-clock, seconds), flops (model FLOPs of training), params (total
    parameters) or tokens (trained on).
    """

    kind: BudgetKind
    value: float

    def __post_init__(self):
        require(
            math.isfinite(self.value) and self.value > 0,
            f"budget ({self.kind})",
            self.value,
            f"{_UNITS[self.kind]} above 0",
        )

    @property
    def unit(self) -> str:
        return _UNITS[self.kind]


_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def parse_seconds(text: str) -> float:
    """'90s', '5m', '1.5h', '2d' or '1h30m' -> seconds. Raises InputError otherwise."""
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise InputError(f"time: got {text!r}, expected a duration such as 90s, 5m, 1.5h or 2d")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_count(field: str, text: str) -> float:
    """'7B', '125M', '1e21' or '300000' -> number. Raises InputError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)([KMBT]?)", text)
    if match is None:
        raise InputError(f"{field}: got {text!r}, expected a number such as 1e18, 125M, 7B or 1.5T")
    return float(match[1]) * _COUNTS[match[2]]


def parse_budget(
    *,
    time: str | None = None,
    budget_flops: str | None = None,
    params: str | None = None,
    tokens: str | None = None,
) -> Budget:
    """The one budget given; None means not given.

    Raises:
      InputError: none, several, or one that is no positive quantity.
    """
    given = {"time": time, "flops": budget_flops, "params": params, "tokens": tokens}
    given = {kind: text for kind, text in given.items() if text is not None}
    if len(given) != 1:
        got = ", ".join(_FLAGS[kind] for kind in given) or "none"
        raise InputError(f"budget: got {got}, expected exactly one of {', '.join(_FLAGS.values())}")
    ((kind, text),) = given.items()
    value = parse_seconds(text) if kind == "time" else parse_count(_FLAGS[kind][2:], text)
    return Budget(kind=kind, value=value)
