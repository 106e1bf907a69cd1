"""The Python standard library as text: real English and code, found wherever Python runs.

A document is one *.py file of `sysconfig`'s stdlib folder; its id is the path relative to that
folder. Left out: installed packages, test suites, `encodings` and `pydoc_data` (tables that leak
one into the other), caches, and files generated for one build (`_sysconfigdata*`, `config-*`).

The held-out files are a pinned list, `stdlib_held_out.txt` beside this file: about 5% of the files
and of the bytes of CPython 3.11's library, drawn by `stdlib_held_out.py`, not picked. On other
versions of Python the names of the list that exist are held out.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.errors import InputError, require
from data.sources.records import text_of
from data.sources.text_source import Document, Problems

_LEFT_OUT_FOLDERS = {
    *("site-packages", "dist-packages", "__pycache__", "lib-dynload"),
    *("test", "tests", "idle_test"),
    *("encodings", "pydoc_data"),
}
_HELD_OUT_FILE = Path(__file__).with_name("stdlib_held_out.txt")
_SHARD_FILES = 100


@dataclass(frozen=True)
class StdlibShard:
    """Some of the library's files, by their sorted ids."""

    folder: Path
    ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first of its files."""
        return str(self.folder / self.ids[0])

    def documents(self, problems: Problems) -> Iterator[Document]:
        """Its files in order, blank ones left out.

        Raises:
            InputError: a file that cannot be read, or, unless those are passed over, not UTF-8.
        """
        for document_id in self.ids:
            path = self.folder / document_id
            try:
                record = {"text": path.read_bytes()}
            except OSError as error:
                raise InputError(
                    f"source: got {path} ({error}), expected a readable file"
                ) from error
            data = text_of(record, "text", where=str(path), problems=problems)
            if data is not None:
                yield Document(id=document_id, data=data)


class StdlibSource:
    """The standard library of the Python that runs this, or of the one in `folder`."""

    kind = "stdlib"

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder or sysconfig.get_path("stdlib"))
        self.pinned_held_out = frozenset(_HELD_OUT_FILE.read_text("utf-8").split())

    def shards(self) -> Sequence[StdlibShard]:
        """The files in groups of 100, sorted by id.

        Raises:
            InputError: the folder is missing.
        """
        ids = self._ids
        require(bool(ids), "source", str(self.folder), "the standard library's folder")
        starts = range(0, len(ids), _SHARD_FILES)
        return [StdlibShard(self.folder, tuple(ids[i : i + _SHARD_FILES])) for i in starts]

    def size_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum((self.folder / name).stat().st_size for name in self._ids)

    def signature(self) -> str:
        """A hash of the files' names, sizes and times of change."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self._ids:
            stat = (self.folder / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, str]:
        """What the corpus card says about this source."""
        return {
            "kind": self.kind,
            "python": sysconfig.get_python_version(),
            "held_out": f"pinned list of {len(self.pinned_held_out)} files ({_HELD_OUT_FILE.name})",
        }

    @cached_property
    def _ids(self) -> list[str]:
        if not self.folder.is_dir():
            raise InputError(f"source: got {self.folder}, expected the standard library's folder")
        names = []
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if _is_wanted_folder(name)]
            relative = Path(folder).relative_to(self.folder)
            names += [(relative / name).as_posix() for name in files if _is_wanted_file(name)]
        return sorted(names)


def _is_wanted_folder(name: str) -> bool:
    return name not in _LEFT_OUT_FOLDERS and not name.startswith("config-")


def _is_wanted_file(name: str) -> bool:
    left_out = ("_sysconfigdata", "sitecustomize", "usercustomize")
    return name.endswith(".py") and not name.startswith(left_out)
