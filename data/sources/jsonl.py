"""JSON lines: every line of a file an object, one field of it the text of a document.

{"text": "One document.\\nIts second line.", "url": "..."}
{"text": "Another."}
"""

import codecs
import json
from collections.abc import Iterable, Iterator

from configs.errors import InputError
from data.sources.compression import read_blocks
from data.sources.locations import StoredFile
from data.sources.records import text_of
from data.sources.text_source import Document, Problems


def read_jsonl(file: StoredFile, text_field: str, problems: Problems) -> Iterator[Document]:
    """The documents of a file, NAME:LINE their ids; empty lines are passed over.

    Line by line, so the file may be of any size. Of a huge line, at most two copies are alive at
    a time (its bytes and its `str`, or its `str` and its text): hence the `del`s.

    Raises:
        InputError: the file cannot be read or does not decompress.
    """
    number = 0
    try:
        for line in _lines(read_blocks(file)):
            number += 1
            where = f"{file.url}:{number}"
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line or line.isspace():
                continue
            try:
                written = line.decode("utf-8")
            except UnicodeDecodeError as error:
                problems.report(
                    "invalid UTF-8",
                    f"source: got {where} (invalid UTF-8, {error.reason} at byte {error.start + 1} "
                    "of the line), expected UTF-8 text",
                )
                continue
            finally:
                del line
            record = _parse(written, where=where, problems=problems)
            del written
            if record is None:
                continue
            data = text_of(record, text_field, where=where, problems=problems)
            del record
            if data is not None:
                yield Document(id=f"{file.name}:{number}", data=data)
                del data
    except OSError as error:
        raise InputError(
            f"source: got {file.url}:{number + 1} ({error}), expected a readable file"
        ) from error


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream less their ends; no reference to a line is kept here.

    Only "\\n" ends a record: splitlines() would also cut at U+2028, which JSON strings may hold.
    """
    begun: list[bytes] = []
    for block in blocks:
        first, *others = block.split(b"\n")
        begun.append(first)
        for part in others:
            yield _joined(begun)
            begun.append(part)
    yield _joined(begun)


def _joined(parts: list[bytes]) -> bytes:
    line = b"".join(parts)
    parts.clear()
    return line


def _parse(written: str, *, where: str, problems: Problems) -> dict[str, object] | None:
    try:
        record = json.loads(written)
    except json.JSONDecodeError as error:
        detail = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        detail = str(error)
    else:
        if isinstance(record, dict):
            return record
        detail = f"a {type(record).__name__} instead of an object"
    problems.report(
        "malformed JSON",
        f"source: got {where} (malformed JSON, {detail}), expected a JSON object on each line",
    )
    return None
