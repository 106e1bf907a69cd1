"""Where an axis puts values and its marks, and how it writes them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def linear_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten that lie in [low, high].

    Args:
        low, high: the range, finite, low <= high; equal ends give the one value.
        target: about how many ticks.

    Returns:
        Between 2 and 2 * target ticks in increasing order, for a range wider than rounding.
    """
    if not high > low:
        return [low]
    raw_step = (high - low) / max(target, 1)
    power = 10.0 ** math.floor(math.log10(raw_step))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw_step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    if last - first > 2 * target:  # only where low and high are equal but for rounding
        return [low, high]
    return [index * step for index in range(first, last + 1)]


def enclosing_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """At least two linear ticks, the first at or below `low` and the last at or above `high`.

    Args:
        low, high: the range, finite, low <= high; ends that are equal but for rounding are moved
            a tenth outward.
        target: about how many ticks.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (0.1 * abs(low) or 1.0), high + (0.1 * abs(high) or 1.0)
    ticks = linear_ticks(low, high, target)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float, target: int = 7) -> list[float]:
    """Powers of ten in [low, high], with 2 and 5 times them where there is room.

    Args:
        low, high: the range, finite, 0 < low <= high.
        target: at most about how many ticks.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1,)):
        ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(inside) <= target:
            break
    if len(inside) < 2:
        return linear_ticks(low, high)
    return inside[:: math.ceil(len(inside) / target)]


def minor_log_ticks(low: float, high: float) -> list[float]:
    """2 to 9 times the powers of ten in [low, high]; none where they would run together."""
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high))
    if last - first > 6:
        return []
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in range(2, 10)]
    return [tick for tick in ticks if low <= tick <= high]


def tick_labels(ticks: list[float], *, each: bool) -> list[str]:
    """Labels of ticks; `each` tick its own step, as on a logarithmic axis."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else (abs(ticks[0]) or 1.0)
    return [tick_label(tick, abs(tick) if each else step) for tick in ticks]


def tick_label(value: float, step: float) -> str:
    """A tick as short as it can be told from the next: 0.5, 2k, 1.5M, 3e−4.

    Args:
        value: the tick.
        step: the distance to the next tick; decides the decimals.
    """
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude < 1e-3 or magnitude >= 1e15:
        mantissa, exponent = f"{value:.2e}".split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    suffix, scale = "", 1.0
    for candidate, candidate_scale in (("k", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12)):
        if magnitude >= candidate_scale:
            suffix, scale = candidate, candidate_scale
    scaled_step = step / scale
    decimals = 0
    while (
        decimals < 6
        and abs(scaled_step * 10**decimals % 1) > 1e-6
        and (abs(scaled_step * 10**decimals % 1 - 1) > 1e-6)
    ):
        decimals += 1
    label = f"{value / scale:.{decimals}f}"
    if "." in label:
        label = label.rstrip("0").rstrip(".")
    return f"{label}{suffix}".replace("-", "−")
