"""A user's own text: files, globs, folders or URLs, of plain text, JSON lines or Parquet.

What a file holds is told by its name, .gz or .zst at the end aside:

    *.jsonl, *.ndjson   a document a line, in the field "text"
    *.parquet           a document a row, in the column "text"
    anything else       one document of UTF-8 text
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs.errors import require
from data.sources.compression import is_compressed, without_compression
from data.sources.jsonl import read_jsonl
from data.sources.locations import StoredFile, files_signature, find_files, split_spec
from data.sources.parquet import read_parquet
from data.sources.plain_text import read_plain_text
from data.sources.text_source import Document, Problems

# How much larger the text is than the file, about: web text in zstd, gzip and Parquet.
_COMPRESSION_RATIO = 4
_PARQUET_RATIO = 3


@dataclass(frozen=True)
class TextFileShard:
    """One file."""

    file: StoredFile
    text_field: str

    @property
    def name(self) -> str:
        """Its path or URL."""
        return self.file.url

    def documents(self, problems: Problems) -> Iterator[Document]:
        """Its documents in order, blank ones left out.

        Raises:
            InputError: it cannot be read or is damaged, or a document is a problem and those are
                not passed over.
        """
        if _is_parquet(self.file):
            return read_parquet(self.file, self.text_field, problems)
        if without_compression(self.file.path).endswith((".jsonl", ".ndjson")):
            return read_jsonl(self.file, self.text_field, problems)
        return read_plain_text(self.file, problems)


class TextFilesSource:
    """Text under one or several paths.

    A folder stands for every file under it, hidden ones left out. Ids are paths relative to the
    folder that holds everything named, with `:LINE` for a line of JSON lines and `:ROW` for a row
    of Parquet.
    """

    kind = "text_files"
    pinned_held_out = None

    def __init__(self, spec: str, *, text_field: str = "text"):
        """Finds the files.

        Args:
            spec: a path, glob or URL, or several with commas, e.g. "notes" or "*.md,more.jsonl".
            text_field: the field or column of the text; "meta.body" for a nested one.

        Raises:
            InputError: nothing is found, or a place cannot be listed.
        """
        self.spec = spec
        self.text_field = text_field
        parts = split_spec(spec)
        require(bool(parts), "source", spec, "stdlib, or the path of a text file or folder")
        self._files = find_files(parts)

    def shards(self) -> Sequence[TextFileShard]:
        """The files, sorted by path."""
        return [TextFileShard(file, self.text_field) for file in self._files]

    def size_bytes(self) -> int | None:
        """The files' sizes, more for compressed ones; None where a file system does not say."""
        total = 0
        for file in self._files:
            if file.size_bytes is None:
                return None
            total += file.size_bytes * _expansion(file)
        return total

    def signature(self) -> str | None:
        """A hash of the files' names, sizes and times of change."""
        return files_signature(self._files)

    def describe(self) -> dict[str, str]:
        """What the corpus card says about this source."""
        return {"kind": self.kind, "spec": self.spec}


def _is_parquet(file: StoredFile) -> bool:
    return file.path.lower().endswith(".parquet")


def _expansion(file: StoredFile) -> int:
    if _is_parquet(file):
        return _PARQUET_RATIO
    return _COMPRESSION_RATIO if is_compressed(file.path) else 1
