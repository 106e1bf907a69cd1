"""The one exception that means "your input is wrong", and the checks that raise it."""

import math


class InputError(ValueError):
    """Bad input from the user: one line, naming the field, what was got and what is expected.

    The command line prints it without a traceback and exits 2. Everything else that is raised is
    a failure of ours or of the machine and exits 1.
    """


def require(condition: bool, field: str, got: object, expected: str) -> None:
    """Raises `InputError("FIELD: got GOT, expected EXPECTED")` unless `condition` holds."""
    if not condition:
        raise InputError(f"{field}: got {got!r}, expected {expected}")


def require_positive(owner: str, **values: float) -> None:
    """Raises InputError unless every field of `owner` is a finite number above 0."""
    for name, value in values.items():
        require(math.isfinite(value) and value > 0, f"{owner}.{name}", value, "a number above 0")


def require_at_least_zero(owner: str, **values: float) -> None:
    """Raises InputError unless every field of `owner` is a finite number, 0 or more."""
    for name, value in values.items():
        require(math.isfinite(value) and value >= 0, f"{owner}.{name}", value, "0 or more")
