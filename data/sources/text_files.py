"""A user's own text: files, globs or folders; each file, or each line of a .jsonl, a document.

About 5% of the documents are held out, chosen by a hash of their ids, so adding documents never
moves the others across; at least one is held out and at least one is trained on. A source with a
single document holds out the last 5% of its lines (of its characters, when it has a single line)
as a document of its own, `ID#held-out`: the model is then scored on the end of a text whose
beginning it has seen.
"""

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

from configs.errors import InputError, require
from data.sources.text_source import Document

HELD_OUT_FRACTION = 0.05
TAIL_SUFFIX = "#held-out"


class TextFilesSource:
    """UTF-8 text under one or several paths.

    A folder stands for every file under it, hidden ones left out. Ids are paths relative to the
    folder that holds everything named, with `:LINE` for a line of a .jsonl file.
    """

    name = "text_files"

    def __init__(self, spec: str):
        """Finds the files.

        Args:
            spec: a path or glob, or several separated by commas, e.g. "notes" or "*.md,more.jsonl".

        Raises:
            InputError: nothing is found, or a path cannot be read.
        """
        self.spec = spec
        parts = [spec] if os.path.exists(spec) else [part for part in spec.split(",") if part]
        require(bool(parts), "source", spec, "stdlib, or the path of a text file or folder")
        found = [_find(part) for part in parts]
        self._root = Path(os.path.commonpath([root for root, _ in found]))
        self._paths = sorted({path for _, paths in found for path in paths})

    def documents(self) -> Iterator[Document]:
        """Every document that is not blank, files sorted by path, lines in order.

        Raises:
            InputError: a file that cannot be read or is not UTF-8, a line of a .jsonl file that is
                not an object with a string field "text", or no text at all.
        """
        first_two = list(islice(self._all_documents(), 2))
        require(bool(first_two), "source", self.spec, "some text (every file is empty)")
        if len(first_two) == 1:
            yield from _cut_tail(first_two[0])
        else:
            yield from self._all_documents()

    def is_held_out(self, document_id: str) -> bool:
        """Whether the document's hash falls in the held-out 5%."""
        return document_id in self._held_out

    def describe(self) -> dict[str, str]:
        """What the corpus card says about this source."""
        split = f"about {HELD_OUT_FRACTION:.0%} of the documents, by a hash of their ids"
        if any(name.endswith(TAIL_SUFFIX) for name in self._held_out):
            split = f"the last {HELD_OUT_FRACTION:.0%} of the only document"
        return {"kind": self.name, "spec": self.spec, "held_out": split}

    def _all_documents(self) -> Iterator[Document]:
        for path in self._paths:
            name = path.relative_to(self._root).as_posix()
            read = _read_lines if path.suffix == ".jsonl" else _read_file
            for document in read(path, name):
                if document.text.strip():
                    yield document

    @cached_property
    def _held_out(self) -> frozenset[str]:
        ranks = sorted((_unit_hash(document.id), document.id) for document in self.documents())
        if len(ranks) == 2 and any(name.endswith(TAIL_SUFFIX) for _, name in ranks):
            return frozenset(name for _, name in ranks if name.endswith(TAIL_SUFFIX))
        below = sum(rank < HELD_OUT_FRACTION for rank, _ in ranks)
        count = min(max(below, 1), len(ranks) - 1)
        return frozenset(name for _, name in ranks[:count])


def _find(part: str) -> tuple[Path, list[Path]]:
    """The folder ids of `part` are relative to, and its files, all absolute."""
    path = Path(part).absolute()
    if path.is_dir():
        files = (file for file in path.rglob("*") if _is_visible(file.relative_to(path)))
        root, paths = path, [file for file in files if file.is_file()]
    elif path.exists():
        root, paths = path.parent, [path]
    else:
        root = path.parent
        while glob.has_magic(str(root)):
            root = root.parent
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))
        paths = [match for match in matches if match.is_file()]
    require(bool(paths), "source", part, "stdlib, or the path, glob or folder of existing files")
    return root, paths


def _is_visible(relative: Path) -> bool:
    return not any(part.startswith(".") for part in relative.parts)


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"source: got {path} ({error}), expected a readable UTF-8 text file; "
            "name the text files with a glob, e.g. 'FOLDER/**/*.txt'"
        ) from error


def _read_file(path: Path, name: str) -> Iterator[Document]:
    yield Document(id=name, text=_read_text(path))


def _read_lines(path: Path, name: str) -> Iterator[Document]:
    # Only "\n" ends a record: splitlines() would also cut at U+2028, which JSON strings may hold.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"source: got {where} ({error}), expected a JSON object on each line"
            ) from error
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise InputError(
                f'source: got {where} without a string field "text", expected {{"text": "..."}}'
            )
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(
                f"source: got {where} with half a surrogate pair, expected valid Unicode"
            )
        yield Document(id=f"{name}:{number}", text=text)


def _cut_tail(document: Document) -> tuple[Document, Document]:
    lines = document.text.splitlines(keepends=True)
    units = lines if len(lines) > 1 else list(document.text)
    require(len(units) > 1, "source", document.id, "more than one character of text")
    cut = len(units) - max(1, round(HELD_OUT_FRACTION * len(units)))
    return (
        Document(id=document.id, text="".join(units[:cut])),
        Document(id=document.id + TAIL_SUFFIX, text="".join(units[cut:])),
    )


def _unit_hash(document_id: str) -> float:
    """A number from 0 to below 1 that depends on the id alone."""
    digest = hashlib.blake2b(document_id.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
