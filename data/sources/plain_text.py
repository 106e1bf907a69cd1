"""A file that is one document."""

import io
from collections.abc import Iterator

from configs.errors import InputError
from data.sources.compression import read_blocks
from data.sources.locations import StoredFile
from data.sources.records import Utf8Check
from data.sources.text_source import Document, Problems


def read_plain_text(file: StoredFile, problems: Problems) -> Iterator[Document]:
    """The file's text, exactly, as one document with the file's name for its id.

    Raises:
        InputError: it cannot be read or does not decompress.
    """
    # A buffer gives its bytes away without copying them, and a `str` is never made: a text of
    # 500 MB needs 500 MB.
    buffer, check = io.BytesIO(), Utf8Check()
    try:
        for block in read_blocks(file):
            check.feed(block)
            buffer.write(block)
    except OSError as error:
        raise InputError(f"source: got {file.url} ({error}), expected a readable file") from error
    check.feed(b"", final=True)
    data = buffer.getvalue()
    if check.problem is not None:
        problems.report(
            "invalid UTF-8",
            f"source: got {file.url}:{check.line} (invalid UTF-8, {check.problem}), expected UTF-8 "
            "text; name the text files with a glob, e.g. 'FOLDER/**/*.txt'",
        )
    elif not data or data.isspace():
        problems.blank()
    else:
        del buffer
        yield Document(id=file.name, data=data)
