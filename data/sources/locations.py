"""Files by path, glob or URL: found once, opened where they are read, local or remote alike.

Everything goes through fsspec, so "gs://bucket/c4/*.jsonl.gz" or "s3://bucket/text" works like a
local path once the package for it is installed.
"""

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations

from configs.errors import InputError, require
from data.sources.foreign_errors import first_line

_USER = re.compile(r"(?P<protocol>\w+)://(?P<user>[^/?#]*)@")
_SECRET_PARAMETER = re.compile(
    r"[?&]([\w-]*(token|secret|passw|credential|signature|api_?key|access_?key)\w*|sig|key|auth)=",
    re.IGNORECASE,
)
# What file systems call the things that change when a file does.
_SIGNS_OF_CHANGE = (
    *("mtime", "created", "updated", "LastModified", "last_modified"),
    *("ETag", "etag", "md5Hash", "generation", "checksum"),
)


@dataclass(frozen=True)
class StoredFile:
    """A file of some file system; can be pickled, and opened from any process.

    Attributes:
        filesystem: fsspec's, which makes itself anew from its arguments when unpickled.
        path: as the file system calls it.
        name: its path relative to the folder that holds everything the user named.
        size_bytes: as stored; None where the file system does not say.
        change: times of change, checksums and the like; None where there are none.
    """

    filesystem: AbstractFileSystem
    path: str
    name: str
    size_bytes: int | None
    change: str | None

    @property
    def url(self) -> str:
        """What to call it in an error: a local path, or a URL."""
        if isinstance(self.filesystem, LocalFileSystem):
            return _printable(self.path)
        return _printable(self.filesystem.unstrip_protocol(self.path))

    def open(self) -> BinaryIO:
        """The stored bytes."""
        return cast(BinaryIO, self.filesystem.open(self.path, "rb"))


def split_spec(spec: str) -> list[str]:
    """The parts of "notes,more.jsonl"; a path that exists wins over the commas in it."""
    return [spec] if os.path.exists(spec) else [part for part in spec.split(",") if part]


def require_no_secrets(spec: str) -> None:
    """Raises InputError where a URL holds a password, token or signature; it is not repeated.

    A corpus's card and errors name their source, so what opens it must not be part of the name.
    A name alone is none in `abfs://container@account/…`.
    """
    found = "a parameter such as a token or a signature" if _SECRET_PARAMETER.search(spec) else ""
    for match in _USER.finditer(spec):
        if ":" in match["user"] or match["protocol"] in ("http", "https"):
            found = "a name or a password before its host"
    if found:
        raise InputError(
            f"source: got a URL with {found}, expected one without: give it to the file system by "
            "the environment or ~/.config/fsspec (FSSPEC_HTTPS_…, AWS_…), or download first"
        )


def find_files(parts: Sequence[str]) -> list[StoredFile]:
    """The files of paths, folders, globs and URLs, each once, sorted folder by folder.

    A folder stands for every file under it, hidden ones left out.

    Raises:
        InputError: a part without files, or a file system that cannot be asked.
    """
    found = [_find(part) for part in parts]
    if len({id(part.filesystem) for part in found}) == 1:
        root = os.path.commonpath([part.root for part in found]).rstrip("/")
        files = [_stored(part, path, path[len(root) :].lstrip("/")) for part, path in _paths(found)]
    else:
        files = [_stored(p, path, p.filesystem.unstrip_protocol(path)) for p, path in _paths(found)]
    return sorted({file.name: file for file in files}.values(), key=lambda f: f.name.split("/"))


def files_signature(files: Iterable[StoredFile]) -> str | None:
    """A hash of names, sizes and times of change; None where a file shows no sign of change."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        if file.change is None:
            return None
        digest.update(f"{file.name}\0{file.size_bytes}\0{file.change}\n".encode())
    return digest.hexdigest()


class _Found(NamedTuple):
    filesystem: AbstractFileSystem
    root: str
    entries: dict[str, dict[str, Any]]


def _paths(found: Iterable[_Found]) -> Iterator[tuple[_Found, str]]:
    return ((part, path) for part in found for path in part.entries)


def _stored(part: _Found, path: str, name: str) -> StoredFile:
    entry = part.entries[path]
    signs = [f"{key}={entry[key]}" for key in _SIGNS_OF_CHANGE if entry.get(key) is not None]
    return StoredFile(
        filesystem=part.filesystem,
        path=path,
        name=_printable(name),
        size_bytes=entry.get("size"),
        change=" ".join(signs) or None,
    )


def _find(part: str) -> _Found:
    filesystem, path = _open_filesystem(part)
    try:
        found = _list(filesystem, path)
    except Exception as error:  # every file system has errors of its own
        raise InputError(
            f"source: got {part!r} ({first_line(error)}), expected a path or URL that can be listed"
        ) from error
    require(
        bool(found.entries),
        "source",
        part,
        "stdlib, tfds:NAME, hf:NAME, or the path, glob, folder or URL of existing files",
    )
    return found


def _list(filesystem: AbstractFileSystem, path: str) -> _Found:
    parent = _parent(path)
    if filesystem.isdir(path):
        root, entries = path, filesystem.find(path, detail=True)
    elif filesystem.exists(path):
        return _Found(filesystem, parent, {path: filesystem.info(path)})
    else:
        root = parent
        while glob.has_magic(root):
            root = _parent(root)
        entries = filesystem.glob(path, detail=True) if glob.has_magic(path) else {}
    below = len(root.rstrip("/"))
    wants_hidden = "/." in path[below:]
    files = {}
    for name, entry in cast(dict[str, dict[str, Any]], entries).items():
        entry = _resolved(filesystem, entry)
        if entry["type"] == "file" and (wants_hidden or "/." not in name[below:]):
            files[name] = entry
    return _Found(filesystem, root, files)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else "")


def _resolved(filesystem: AbstractFileSystem, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of what a link points to; the link's own where that is missing."""
    if not entry.get("islink"):
        return entry
    try:
        return filesystem.info(entry["name"])
    except OSError:
        return entry


def _open_filesystem(part: str) -> tuple[AbstractFileSystem, str]:
    protocol, separator, _ = part.partition("://")
    if not separator:
        return LocalFileSystem(), os.path.abspath(part)
    try:
        return url_to_fs(part)
    except ImportError as error:
        module = known_implementations[protocol]["class"].partition(".")[0]
        package = f"'fsspec[{protocol}]'" if module == "fsspec" else module
        raise InputError(
            f"source: got {part!r} ({first_line(error)}), "
            f"expected the package that reads {protocol}:// to be installed: pip install {package}"
        ) from error
    except Exception as error:  # unknown protocols, missing credentials
        raise InputError(
            f"source: got {part!r} ({first_line(error)}), expected a URL that fsspec can open"
        ) from error


def _printable(name: str) -> str:
    """`name` as one line of valid Unicode: bytes that are not UTF-8 become "\\xff"."""
    data = name.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")
