"""The Python standard library as text: real English and code, found wherever Python runs.

A document is one *.py file of `sysconfig`'s stdlib folder; its id is the path relative to that
folder. Left out: installed packages, test suites, `encodings` and `pydoc_data` (tables that leak
one into the other), caches, and files generated for one build (`_sysconfigdata*`, `config-*`).

The held-out files are a pinned list, `stdlib_held_out.txt` beside this file: about 5% of the files
and of the bytes of CPython 3.11's library, drawn by `stdlib_held_out.py`, not picked. On other
versions of Python the names of the list that exist are held out.
"""

import os
import sysconfig
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from configs.errors import InputError
from data.sources.text_source import Document

_LEFT_OUT_FOLDERS = {
    *("site-packages", "dist-packages", "__pycache__", "lib-dynload"),
    *("test", "tests", "idle_test"),
    *("encodings", "pydoc_data"),
}
_HELD_OUT_FILE = Path(__file__).with_name("stdlib_held_out.txt")


class StdlibSource:
    """The standard library of the Python that runs this, or of the one in `folder`."""

    name = "stdlib"

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder or sysconfig.get_path("stdlib"))

    def documents(self) -> Iterator[Document]:
        """Every document, sorted by id.

        Raises:
            InputError: a file that cannot be read or is not UTF-8.
        """
        for name in self._names:
            path = self.folder / name
            try:
                text = path.read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"source: got {path} ({error}), expected UTF-8 text") from error
            if text.strip():
                yield Document(id=name, text=text)

    def is_held_out(self, document_id: str) -> bool:
        """Whether `document_id` is on the pinned list."""
        return document_id in self._held_out

    def describe(self) -> dict[str, str]:
        """What the corpus card says about this source."""
        return {
            "kind": "stdlib",
            "python": sysconfig.get_python_version(),
            "held_out": f"pinned list of {len(self._held_out)} files ({_HELD_OUT_FILE.name})",
        }

    @cached_property
    def _names(self) -> list[str]:
        if not self.folder.is_dir():
            raise InputError(f"source: got {self.folder}, expected the standard library's folder")
        names = []
        for folder, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if _is_wanted_folder(name)]
            relative = Path(folder).relative_to(self.folder)
            names += [(relative / name).as_posix() for name in files if _is_wanted_file(name)]
        return sorted(names)

    @cached_property
    def _held_out(self) -> frozenset[str]:
        return frozenset(_HELD_OUT_FILE.read_text("utf-8").split())


def _is_wanted_folder(name: str) -> bool:
    return name not in _LEFT_OUT_FOLDERS and not name.startswith("config-")


def _is_wanted_file(name: str) -> bool:
    left_out = ("_sysconfigdata", "sitecustomize", "usercustomize")
    return name.endswith(".py") and not name.startswith(left_out)
