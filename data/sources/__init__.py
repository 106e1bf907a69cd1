"""Sources of text, each a `TextSource`: the standard library, or files of the user's own."""

from data.sources.stdlib import StdlibSource
from data.sources.text_files import TextFilesSource
from data.sources.text_source import Document, TextSource

__all__ = ["Document", "TextSource", "open_source"]


def open_source(spec: str) -> TextSource:
    """The source a user names.

    Args:
        spec: "stdlib", or a path, glob or folder of text or .jsonl files (several with commas).

    Raises:
        InputError: nothing readable is found there.
    """
    return StdlibSource() if spec == "stdlib" else TextFilesSource(spec)
