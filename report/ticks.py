"""Where an axis puts its marks, and how it writes them."""

import math


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
