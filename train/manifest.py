"""The manifest of a checkpoint: what it holds, and a checksum of every part of it.

    STEP/isoflop_manifest.json
    {"schema_version": 2, "checksum": of this very file, "step": 100, "score": 2.31,
     "saved": "2026-11-28T15:00:00Z",
     "arrays": {"params/embedding/table": ["float32", [400, 32], checksum or null]},
     "files": {"progress/metadata": {"checksum": "9f0c…", "bytes": 310}}}

Checksums are xxh3, 128 bits. The file's own is taken with zeros in its place. An array's is over
its bytes in row-major order as they were in memory, before anything was written; it is null where
no single process held all of the array. Version 1 had file checksums alone. No JAX here.
"""

import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from configs.errors import InputError
from configs.serialize import write_text

MANIFEST = "isoflop_manifest.json"
SCHEMA_VERSION = 2

_UNKNOWN = "0" * 32
_BLOCK_BYTES = 1 << 20
# Of a file that is not there, or that the disk cannot give back. All others (no permission, too
# many open files, a server that is gone) say nothing of what was written.
_DAMAGE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)),
}
_THREADS = 8  # disks answer several readers faster than one; hashing itself is quicker than memory


class DamagedError(Exception):
    """A checkpoint is not what was written; the message says where."""


class FileEntry(NamedTuple):
    """A file's checksum and size; version 1 did not have the size."""

    checksum: str
    num_bytes: int | None


class ArrayEntry(NamedTuple):
    """An array's dtype, shape, and checksum where one process held all of it."""

    dtype: str
    shape: tuple[int, ...]
    checksum: str | None = None

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Manifest(NamedTuple):
    """What is known of a step. Of version 1, only the files.

    step: its number. score: held-out loss, lower is better. saved: UTC time of the commit.
    arrays: name ("params/embedding/table") -> entry; files: path within the step -> entry.
    """

    files: Mapping[str, FileEntry]
    step: int | None = None
    score: float | None = None
    saved: str = ""
    arrays: Mapping[str, ArrayEntry] | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of all files, where the manifest has them."""
        return sum(entry.num_bytes or 0 for entry in self.files.values())


def write_manifest(
    step_folder: Path,
    *,
    step: int,
    score: float | None,
    saved: str,
    arrays: Mapping[str, ArrayEntry],
) -> Manifest:
    """Checksums every file under a folder, writes the manifest, and waits for the disk to have all.

    Raises:
      OSError: a file cannot be read, or the disk refuses.
    """
    names = sorted(_file_names(step_folder))
    entries = _in_threads(lambda name: _entry(step_folder / name, sync=True), names)
    manifest = Manifest(dict(zip(names, entries, strict=True)), step, score, saved, arrays)
    write_text(step_folder / MANIFEST, _text(manifest))
    for folder, _, _ in os.walk(step_folder):
        sync_folder(Path(folder))
    return manifest


def set_score(step_folder: Path, score: float) -> None:
    """Gives a step a held-out loss that came after it was written; where its manifest has none of
    this version, or is damaged, nothing is done.

    Raises:
      OSError: the disk refuses.
    """
    try:
        manifest = read_manifest(step_folder)
    except (DamagedError, InputError):
        return
    if manifest.step is not None:
        write_text(step_folder / MANIFEST, _text(manifest._replace(score=score)))


def read_manifest(step_folder: Path) -> Manifest:
    """The manifest of a step.

    Raises:
      DamagedError: there is none, it is not what was written, or it is another step's.
      InputError: an intact one of a version that this program does not know.
      OSError: it cannot be read for a reason that is not its own.
    """
    path = step_folder / MANIFEST
    try:
        text = path.read_text("utf-8")
        record = json.loads(text)
        version = record["schema_version"]
        if version == 1:
            return Manifest({name: FileEntry(str(c), None) for name, c in record["files"].items()})
        if record["checksum"] != _own_checksum(text, record["checksum"]):
            raise DamagedError(f"{MANIFEST} does not match its own checksum")
        manifest = _parsed(record) if version == SCHEMA_VERSION else None
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise
        raise DamagedError(f"{MANIFEST} is missing or unreadable") from error
    if manifest is None:
        raise InputError(f"{path}: got schema_version {version!r}, expected 1 or 2")
    if step_folder.name not in (str(manifest.step), f"saving-{manifest.step}"):
        raise DamagedError(f"{MANIFEST} is that of step {manifest.step}")
    return manifest


def check_names(step_folder: Path, manifest: Manifest) -> list[str]:
    """Files that are missing, too many, or of another size; one line each."""
    present, expected = _file_names(step_folder), set(manifest.files)
    problems = [f"{name} is missing" for name in sorted(expected - present)]
    problems += [f"{name} was not there when it was written" for name in sorted(present - expected)]
    for name in sorted(expected & present):
        path, entry = step_folder / name, manifest.files[name]
        num_bytes = path.lstat().st_size
        if path.is_symlink() or not path.is_file():
            problems.append(f"{name} is not a file")
        elif entry.num_bytes not in (None, num_bytes):
            problems.append(f"{name} has {num_bytes} bytes and had {entry.num_bytes}")
    return problems


def check_contents(
    step_folder: Path,
    manifest: Manifest,
    names: Iterable[str] | None = None,
    *,
    share: tuple[int, int] = (0, 1),
) -> list[str]:
    """Files that cannot be read or do not match their checksums; one line each.

    Args:
      names: of files in the manifest; None for all.
      share: (i, n): of these by size, every n-th from the i-th on, so that n processes read all of
        them together.

    Raises:
      OSError: a file cannot be read for a reason that is not its own.
    """
    names = manifest.files if names is None else names
    sizes = {name: manifest.files[name].num_bytes or 0 for name in names}
    index, count = share

    def problem(name: str) -> str | None:
        try:
            checksum = _entry(step_folder / name).checksum
        except OSError as error:
            if error.errno not in _DAMAGE:
                raise
            return f"{name} cannot be read ({error.strerror})"
        is_same = checksum == manifest.files[name].checksum
        return None if is_same else f"{name} does not match its checksum"

    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    return sorted(filter(None, _in_threads(problem, by_size[index::count])))


def check_step(step_folder: Path) -> list[str]:
    """Everything that is wrong with a step's files, one line each; [] for an intact one.

    Raises:
      InputError, OSError: as `read_manifest`.
    """
    try:
        manifest = read_manifest(step_folder)
    except DamagedError as error:
        return [str(error)]
    return check_names(step_folder, manifest) or check_contents(step_folder, manifest)


def array_checksum(array: np.ndarray) -> str:
    """Of the array's bytes in row-major order."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return xxhash.xxh3_128_hexdigest(content.data)


def array_checksums(arrays: Iterable[np.ndarray]) -> list[str]:
    """`array_checksum` of each."""
    return _in_threads(array_checksum, arrays)


def sync_folder(folder: Path) -> None:
    """Makes what was created, renamed or removed in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _text(manifest: Manifest) -> str:
    record = {
        "schema_version": SCHEMA_VERSION,
        "checksum": _UNKNOWN,
        "step": manifest.step,
        "score": manifest.score,
        "saved": manifest.saved,
        "arrays": {
            name: [entry.dtype, list(entry.shape), entry.checksum]
            for name, entry in (manifest.arrays or {}).items()
        },
        "files": {
            name: {"checksum": entry.checksum, "bytes": entry.num_bytes}
            for name, entry in manifest.files.items()
        },
    }
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    return text.replace(_UNKNOWN, _own_checksum(text, _UNKNOWN), 1)


def _own_checksum(text: str, checksum: str) -> str:
    """Of the file's text, with zeros in the place of its checksum."""
    if not re.fullmatch(r"[0-9a-f]{32}", checksum):
        raise ValueError("no checksum")
    return xxhash.xxh3_128_hexdigest(text.replace(checksum, _UNKNOWN, 1).encode())


def _parsed(record: Mapping[str, Any]) -> Manifest:
    return Manifest(
        files={n: FileEntry(f["checksum"], f["bytes"]) for n, f in record["files"].items()},
        step=record["step"],
        score=record["score"],
        saved=record["saved"],
        arrays={n: ArrayEntry(d, tuple(s), c) for n, (d, s, c) in record["arrays"].items()},
    )


def _file_names(step_folder: Path) -> set[str]:
    """Paths within a step of all that is no folder, the manifest left out."""
    names = set()
    for folder, folders, files in os.walk(step_folder):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*files, *links]:
            names.add((Path(folder) / name).relative_to(step_folder).as_posix())
    return names - {MANIFEST}


def _entry(path: Path, *, sync: bool = False) -> FileEntry:
    digest, num_bytes, block = xxhash.xxh3_128(), 0, memoryview(bytearray(_BLOCK_BYTES))
    # Read, not mapped: of a bad disk a read fails with an error, a mapping with a signal.
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            num_bytes += count
        if sync:
            os.fsync(file.fileno())
    return FileEntry(digest.hexdigest(), num_bytes)


def _in_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(function, items))
