"""Numbers as people read them: 1.23M, 4.51e13 FLOPs, 1.50 GiB, 0:05:03."""

import math

MISSING = "—"


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _special(value: float | None) -> str:
    if value is None:
        return MISSING
    return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")


def significant(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, plain between 1e-4 and 1e6: 1.52, 0.0123, 3.1e-7."""
    if value is None or not _finite(value):
        return _special(value)
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    # The exponent of the rounded value: 0.9999 has three digits as 1.00, not as 1.000.
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    decimals = max(0, digits - 1 - exponent)
    return f"{value:,.{decimals}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number at a glance: 950, 12.3k, 1.23M, 6.74B, 1.40T."""
    if value is None or not _finite(value):
        return _special(value)
    if abs(value) < 1000:
        return f"{value:.0f}" if value == round(value) else significant(value)
    for suffix, scale in (("k", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12)):
        # 999.5 of one unit rounds to 1000: it reads better as 1.00 of the next.
        if abs(value) < 999.5 * scale:
            return significant(value / scale) + suffix
    return significant(value)


def whole(value: float | None) -> str:
    """A whole number in full: 2,013,184."""
    if value is None or not _finite(value):
        return _special(value)
    return f"{value:,.0f}"


def flops(value: float | None) -> str:
    """4.51e13 FLOPs."""
    if value is None or not _finite(value):
        return _special(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)} FLOPs"


def byte_size(value: float | None) -> str:
    """Bytes in binary units: 512 B, 1.50 GiB."""
    if value is None or not _finite(value):
        return _special(value)
    for suffix, scale in (("B", 1), ("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30)):
        if abs(value) < 999.5 * scale:
            number = f"{value:.0f}" if scale == 1 else significant(value / scale)
            return f"{number} {suffix}"
    return f"{significant(value / 2**40)} TiB"


def duration(seconds: float | None) -> str:
    """h:mm:ss from a minute on, else seconds or milliseconds: 0:05:03, 12.4 s, 86.1 ms."""
    if seconds is None or not _finite(seconds):
        return _special(seconds)
    if seconds < 0.9995:
        return f"{significant(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{significant(seconds)} s"
    whole_seconds = round(seconds)
    minutes, rest = divmod(whole_seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A share: 38.4%."""
    if fraction is None or not _finite(fraction):
        return _special(fraction)
    return f"{100 * fraction:.{digits}f}%".replace("-", "−")


def signed_percent(fraction: float | None) -> str:
    """A difference: +3.2%, −1.0%, exactly 0 as "0%"."""
    if fraction is None or not _finite(fraction):
        return _special(fraction)
    if fraction == 0:
        return "0%"
    digits = 1 if abs(fraction) >= 0.001 else 2
    return f"{100 * fraction:+.{digits}f}%".replace("-", "−")
