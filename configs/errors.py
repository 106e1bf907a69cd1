"""The one exception that means "your input is wrong", and the checks that raise it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input from the user: one line, naming the field, what was got and what is expected.

    Several problems found at once are its arguments, a line each. The command line prints them
    without a traceback and exits 2. Everything else that is raised is a failure of ours or of the
    machine and exits 1.
    """

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, one line each, without what a terminal would obey (a name may hold it)."""
        return tuple(_one_line(str(problem)) for problem in self.args)

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class Problems:
    """Gathers what several checks find, to raise all of it at once.

    Example:
        problems = Problems()
        with problems.gathered():
            check_this()
        with problems.gathered():
            check_that()
        problems.raise_any()
    """

    def __init__(self):
        self._found: dict[str, None] = {}  # in order, each once

    def __bool__(self) -> bool:
        return bool(self._found)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keeps the InputError that is raised within, and goes on after it."""
        try:
            yield
        except InputError as error:
            self._found |= dict.fromkeys(error.problems)

    def raise_any(self) -> None:
        """Raises one InputError with every problem that was gathered; nothing if there is none."""
        if self._found:
            raise InputError(*self._found)


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


def _one_line(text: str) -> str:
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)
