"""The text of one record, whichever format it comes from: found, checked, as UTF-8 bytes."""

import codecs
from collections.abc import Mapping

from data.sources.text_source import Problems

_BLOCK_BYTES = 2**20
_SHOWN_FIELDS = 8


class Utf8Check:
    """Checks text that comes in blocks, without ever holding it as a `str`.

    Example: after feed(b"ab\\nc") and feed(b"\\xff"), `problem` is "invalid start byte" and
    `line` is 2.

    Attributes:
        problem: what is wrong with the first byte that is not UTF-8; None while all is well.
        line: the line of that byte, from 1.
    """

    def __init__(self):
        self.problem: str | None = None
        self.line = 1
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def feed(self, block: bytes, *, final: bool = False) -> None:
        """Takes the next block; `final` after the last, since a character may be cut off."""
        if self.problem is not None:
            return
        try:
            self._decoder.decode(block, final)
            self.line += block.count(b"\n")
        except UnicodeDecodeError as error:
            # `object` is the block, with the first bytes of a character that it completes.
            self.line += error.object.count(b"\n", 0, error.start)
            self.problem = error.reason


def field_of(record: Mapping[str, object], text_field: str) -> object:
    """The field of that name, or the nested one that dots lead to; None where it is missing."""
    if text_field in record:
        return record[text_field]
    value: object = record
    for name in text_field.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def text_of(
    record: Mapping[str, object], text_field: str, *, where: str, problems: Problems
) -> bytes | None:
    """The record's text as UTF-8.

    Args:
        record: e.g. {"text": "héllo", "url": "..."}.
        text_field: its name there; "meta.body" for a nested one.
        where: what an error calls the record, such as "notes.jsonl:3".
        problems: is told of a field that is missing, not a string, or not valid Unicode.

    Returns:
        The text, or None where it is blank or a problem that is passed over.
    """
    value = field_of(record, text_field)
    if value is None:
        shown = ", ".join(map(repr, list(record)[:_SHOWN_FIELDS]))
        problems.report(
            "missing text field",
            f"source: got {where} (no text in the field {text_field!r}; it has {shown or 'none'}), "
            f"expected a string there",
        )
        return None
    if isinstance(value, str):
        return _encode(value, where=where, problems=problems)
    if isinstance(value, bytes):
        return _checked(value, where=where, problems=problems)
    problems.report(
        "text field is not a string",
        f"source: got {where} (the field {text_field!r} is of type {type(value).__name__}), "
        "expected a string",
    )
    return None


def _encode(text: str, *, where: str, problems: Problems) -> bytes | None:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        problems.report(
            "unpaired surrogate",
            f"source: got {where} (unpaired surrogate \\u{ord(text[error.start]):04x}), "
            "expected valid Unicode",
        )
        return None
    return _unless_blank(data, problems)


def _checked(data: bytes, *, where: str, problems: Problems) -> bytes | None:
    check = Utf8Check()
    for start in range(0, len(data), _BLOCK_BYTES):
        check.feed(data[start : start + _BLOCK_BYTES])
    check.feed(b"", final=True)
    if check.problem is not None:
        problems.report(
            "invalid UTF-8",
            f"source: got {where} (invalid UTF-8, {check.problem} in line {check.line} of the "
            "text), expected UTF-8 text",
        )
        return None
    return _unless_blank(data, problems)


def _unless_blank(data: bytes, problems: Problems) -> bytes | None:
    if data and not data.isspace():
        return data
    problems.blank()
    return None
