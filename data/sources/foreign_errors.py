"""What an exception of somebody else's library says, short enough for an error of one line."""

_MAX_CHARACTERS = 300


def first_line(error: BaseException) -> str:
    """The kind of error and the first line of its message.

    Example: "FileNotFoundError: Couldn't find any data file at /text." of a message that goes on
    for twenty lines.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:_MAX_CHARACTERS] if lines else 'no details'}"
