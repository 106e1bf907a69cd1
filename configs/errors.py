"""The one exception that means "your input is wrong", and the check that raises it."""


class InputError(ValueError):
    """Bad input from the user: one line, naming the field, what was got and what is expected.

    The command line prints it without a traceback and exits 2. Everything else that is raised is
    a failure of ours or of the machine and exits 1.
    """


def require(condition: bool, field: str, got: object, expected: str) -> None:
    """Raises `InputError("FIELD: got GOT, expected EXPECTED")` unless `condition` holds."""
    if not condition:
        raise InputError(f"{field}: got {got!r}, expected {expected}")
