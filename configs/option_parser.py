"""tyro, with its multi-line boxes turned into one-line `InputError`s."""

import contextlib
import dataclasses
import io
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from configs.errors import InputError

T = TypeVar("T")

# tyro draws boxes with lines, in colour on a terminal; without UTF-8, in ASCII.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BORDER = re.compile(r"^\s*│ ?|\s*│\s*$")
_RULE = re.compile(r"[╰╯─-]{4,}")

_BAD_VALUE = re.compile(
    r"Error parsing (?P<option>-\S+): "
    r"(?:invalid literal for int\(\) with base 10: '(?P<int>.*)'"
    r"|could not convert string to float: '(?P<float>.*)'"
    r"|no type matching (?P<types>\S+) could be instantiated from \['(?P<any>.*?)'\].*)"
)
_BAD_CHOICE = re.compile(
    r"invalid choice '(?P<got>.*)' for argument '(?P<option>.*)'\. "
    r"Expected one of \((?P<choices>.*)\)\."
)
_NO_VALUE = re.compile(r"Missing value for argument '(?P<option>.*)'\. .*")
_MISSING = re.compile(r"Missing from (?P<prog>.*?): (?P<what>.*)")
_WORDS = {"INT": "a whole number", "FLOAT": "a number", "STR": "a string", "{None}": "None"}


def parse_options(command: type[T], args: Sequence[str], **options: Any) -> tuple[T, list[str]]:
    """Builds `command`, a dataclass, from `args`; returns it with the arguments nobody knows.

    Args:
      command: a dataclass.
      args: command-line arguments.
      **options: passed on to `tyro.cli` (prog, description, default, config).

    Raises:
      InputError: missing option, mistyped value, or an InputError of the dataclass's own checks,
        as it was raised.
      SystemExit: with code 0, after `--help` was printed.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            result = tyro.cli(command, args=list(args), return_unknown_args=True, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        for cause in _causes(stop):
            if isinstance(cause, InputError):
                raise cause from None
        raise InputError(_one_line(printed.getvalue(), command)) from None
    sys.stderr.write(printed.getvalue())
    return result


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _one_line(box: str, command: type) -> str:
    """The message in a tyro error box, in our words where it is one of the usual ones."""
    text = " ".join(_body(box))
    if match := _BAD_VALUE.fullmatch(text):
        got = next(match[name] for name in ("int", "float", "any") if match[name] is not None)
        types = match["types"] or ("INT" if match["int"] is not None else "FLOAT")
        expected = " or ".join(_WORDS.get(name, name) for name in reversed(types.split("|")))
        return f"{match['option']}: got {got!r}, expected {expected}"
    if match := _BAD_CHOICE.fullmatch(text):
        choices = match["choices"].rstrip(",").replace("'", "")
        return f"{match['option']}: got {match['got']!r}, expected one of {choices}"
    if match := _NO_VALUE.fullmatch(text):
        return f"{match['option']}: got nothing, expected a value"
    if match := _MISSING.fullmatch(text):
        words = match["what"].split()  # "--processes INT How many; …", or of an argument "PATH A …"
        is_option = words[0].startswith("-")
        what = " ".join(words[:2] if is_option else _positionals(command) or words[:1])
        return f"{match['prog']}: got too few arguments, expected {what}; see --help"
    return text


def _positionals(command: type) -> list[str]:
    """The arguments that a command cannot do without, as `--help` would shout them: RUN, TEXT."""
    hints = typing.get_type_hints(command, include_extras=True)
    return [
        field.name.upper()
        for field in dataclasses.fields(command)
        if tyro.conf.Positional in getattr(hints[field.name], "__metadata__", ())
        and field.default is dataclasses.MISSING
    ]


def _body(box: str) -> Iterator[str]:
    """The words of the first section of a box, line by line: those from its title to a rule."""
    lines = [_BORDER.sub("", line).strip() for line in _COLOUR.sub("", box).splitlines()[1:]]
    if lines and _RULE.fullmatch(lines[0]):  # ASCII underlines the title
        lines = lines[1:]
    for line in lines:
        if _RULE.fullmatch(line):
            return
        if line:
            yield line
