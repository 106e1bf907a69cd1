"""What a user may spend, and reading it from the command line."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from configs.errors import InputError, require

BudgetKind = Literal["time", "flops", "params", "tokens", "cost"]
_FLAGS = {
    "time": "--time",
    "hours": "--hours",
    "flops": "--budget-flops",
    "params": "--params",
    "tokens": "--tokens",
    "cost": "--cost",
}
_UNITS = {
    "time": "s",
    "flops": "FLOPs",
    "params": "parameters",
    "tokens": "tokens",
    "cost": "of the price's currency",
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One limit, the other quantities follow from it.

    kind: time (training wall-clock, seconds), flops (model FLOPs of training), params (total
    parameters), tokens (trained on) or cost (money, at a price per chip-hour).
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
_COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


def parse_seconds(text: str) -> float:
    """'90s', '5m', '1.5h', '2d' or '1h30m' -> seconds. Raises InputError otherwise."""
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise InputError(f"time: got {text!r}, expected a duration such as 90s, 5m, 1.5h or 2d")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_count(field: str, text: str) -> float:
    """'7B', '125M', '1e21' or '300000' -> number. Raises InputError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)([KMBGT]?)", text)
    if match is None:
        raise InputError(f"{field}: got {text!r}, expected a number such as 1e18, 125M, 7B or 1.5T")
    return float(match[1]) * _COUNTS[match[2]]


def parse_budget(
    *,
    time: str | None = None,
    hours: str | None = None,
    budget_flops: str | None = None,
    params: str | None = None,
    tokens: str | None = None,
    cost: str | None = None,
) -> Budget:
    """The one budget given; None means not given. `hours` is `time` in another unit.

    Raises:
      InputError: none, several, or one that is no positive quantity.
    """
    given = {
        "time": time,
        "hours": hours,
        "flops": budget_flops,
        "params": params,
        "tokens": tokens,
        "cost": cost,
    }
    given = {kind: text for kind, text in given.items() if text is not None}
    if len(given) != 1:
        got = ", ".join(_FLAGS[kind] for kind in given) or "none"
        raise InputError(f"budget: got {got}, expected exactly one of {', '.join(_FLAGS.values())}")
    ((kind, text),) = given.items()
    match kind:
        case "time":
            return Budget(kind="time", value=parse_seconds(text))
        case "hours":
            return Budget(kind="time", value=3600.0 * parse_count("hours", text))
        case _:
            return Budget(kind=kind, value=parse_count(_FLAGS[kind][2:], text))


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What a plan has to respect beside its budget; None: no such limit.

    Attributes:
      vocab_size: of a tokenizer that exists already.
      seq_len: tokens a row. seq_len_rule: who says so.
      max_params: total parameters, at most.
      unique_tokens: training tokens that exist.
      max_epochs: how often they may be repeated.
      inference_tokens: tokens the model is expected to process after training; they make a
        smaller model worth training longer.
    """

    vocab_size: int | None = None
    seq_len: int | None = None
    seq_len_rule: str = "given"
    max_params: float | None = None
    unique_tokens: float | None = None
    max_epochs: float = 1.0
    inference_tokens: float | None = None

    def __post_init__(self):
        for field in ("vocab_size", "seq_len", "max_params", "unique_tokens", "inference_tokens"):
            value = getattr(self, field)
            if value is not None:
                require(math.isfinite(value) and value > 0, field, value, "a number above 0")
        require(
            math.isfinite(self.max_epochs) and self.max_epochs >= 1,
            "max_epochs",
            self.max_epochs,
            "at least 1",
        )


NO_CONSTRAINTS = Constraints()
