"""Documents on disk while a corpus is prepared: read once, in the order of a shuffle.

Each document gets a key, a hash of its text under the seed. The documents sorted by key are the
shuffled corpus, and equal texts stand side by side, so that duplicates are found without holding
anything in memory. Readers append texts to one file per leading bits of the key (a bucket), with
an index of keys beside it; buckets are then small enough to sort one by one.

    FOLDER/PART/BUCKET.text     texts one after another, UTF-8
    FOLDER/PART/BUCKET.index    an `ENTRY` for each
    FOLDER/PART/done.json       what was read; only there when the part is whole
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.serialize import write_json
from data.sources.text_source import Document

# Texts whose rank is below this share of all ranks are held out.
HELD_OUT_FRACTION = 0.05
_ALL_RANKS = 2**64
FIRST_RANK, LAST_RANK = 0, _ALL_RANKS - 1

_BUFFERED_BYTES = 64 * 2**20
_WHOLE_BYTES = 64 * 2**20

ENTRY = np.dtype(
    [
        ("key_high", "<u8"),
        ("key_low", "<u8"),
        ("rank", "<u8"),
        ("offset", "<u8"),
        ("length", "<u8"),
        ("part", "<u4"),
    ]
)


class PartRecord(NamedTuple):
    """What reading one part of a source came to. skipped: reason -> documents passed over."""

    documents: int
    bytes: int
    skipped: dict[str, int]


class SpoolWriter:
    """Appends documents to the buckets of one part."""

    def __init__(self, folder: Path, *, part: int, num_buckets: int, seed: int):
        """Args:
        folder: of the part; made, and emptied of what a killed reader left.
        part: its number.
        num_buckets: a power of two, the same for all parts.
        seed: of the shuffle.
        """
        self._folder, self._part = folder, part
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        self._shift = 64 - (num_buckets.bit_length() - 1)
        self._seed = seed.to_bytes(8, "little")
        self._texts: list[list[bytes]] = [[] for _ in range(num_buckets)]
        self._entries: list[list[tuple[int, ...]]] = [[] for _ in range(num_buckets)]
        self._sizes = [0] * num_buckets
        self._buffered = 0
        self.documents = self.bytes = 0

    def add(self, document: Document, *, rank: int | None = None) -> None:
        """Appends a document; its `rank` decides whether it is held out, by default by its id."""
        digest = hashlib.blake2b(document.data, digest_size=16, key=self._seed).digest()
        high, low = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
        bucket = high >> self._shift
        size = len(document.data)
        rank = rank_of(document.id) if rank is None else rank
        self._entries[bucket].append((high, low, rank, self._sizes[bucket], size, self._part))
        self._texts[bucket].append(document.data)
        self._sizes[bucket] += size
        self._buffered += size
        self.documents += 1
        self.bytes += size
        if self._buffered >= _BUFFERED_BYTES:
            self._flush()

    def close(self, skipped: dict[str, int]) -> PartRecord:
        """Writes what is buffered, and the record that makes the part whole."""
        self._flush()
        record = PartRecord(self.documents, self.bytes, skipped)
        write_json(self._folder / "done.json", record._asdict())
        return record

    def _flush(self) -> None:
        for bucket, texts in enumerate(self._texts):
            if not texts:
                continue
            with (self._folder / f"{bucket:04}.text").open("ab") as file:
                file.writelines(texts)
            with (self._folder / f"{bucket:04}.index").open("ab") as file:
                file.write(np.array(self._entries[bucket], ENTRY).tobytes())
            texts.clear()
            self._entries[bucket].clear()
        self._buffered = 0


def read_part_record(folder: Path) -> PartRecord | None:
    """The record of a part that was read to its end, else None."""
    try:
        return PartRecord(**json.loads((folder / "done.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def rank_of(document_id: str) -> int:
    """A number from 0 to 2**64 - 1 that depends on the id alone."""
    digest = hashlib.blake2b(document_id.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def is_held_out(ranks: np.ndarray) -> np.ndarray:
    """Which documents are held out by their ranks."""
    return ranks < int(HELD_OUT_FRACTION * _ALL_RANKS)


class Duplicates(NamedTuple):
    """Documents left out because their text occurs already, and their bytes."""

    documents: int
    bytes: int


def ordered_bucket(
    folders: Sequence[Path], bucket: int, *, keep_duplicates: bool
) -> tuple[np.ndarray, Duplicates]:
    """The entries of a bucket in the order of the shuffle, of equal texts the first that was read.

    Args:
        folders: of all parts, in the order of the source.
    """
    indexes = [folder / f"{bucket:04}.index" for folder in folders]
    found = [np.fromfile(path, ENTRY) for path in indexes if path.exists()]
    entries = np.concatenate([np.zeros(0, ENTRY), *found])
    # Stable, so that equal texts stay in the order of the source.
    entries = entries[np.lexsort((entries["key_low"], entries["key_high"]))]
    high, low = entries["key_high"], entries["key_low"]
    repeats = np.zeros(len(entries), bool)
    repeats[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    duplicates = Duplicates(int(repeats.sum()), int(entries["length"][repeats].sum()))
    return (entries, Duplicates(0, 0)) if keep_duplicates else (entries[~repeats], duplicates)


def read_texts(folders: Sequence[Path], bucket: int, entries: np.ndarray) -> Iterator[bytes]:
    """The texts of a bucket's entries, in their order.

    A file of a part is read whole, unless it is large or little of it is wanted: the order of the
    shuffle jumps about in it, which a disk answers slowly.
    """
    parts = {}
    try:
        for part in np.unique(entries["part"]).tolist():
            wanted = int(entries["length"][entries["part"] == part].sum())
            path = folders[part] / f"{bucket:04}.text"
            parts[part] = _SpooledFile(path, wanted)
        for part, offset, length in entries[["part", "offset", "length"]].tolist():
            yield parts[part].read(offset, length)
    finally:
        for part in parts.values():
            part.close()


class _SpooledFile:
    """Slices of a file, `wanted` bytes in all; out of memory where that saves jumping about."""

    def __init__(self, path: Path, wanted: int):
        self._file = path.open("rb")
        is_whole = path.stat().st_size <= min(2 * wanted, _WHOLE_BYTES)
        self._contents = self._file.read() if is_whole else None

    def read(self, offset: int, length: int) -> bytes:
        if self._contents is not None:
            return self._contents[offset : offset + length]
        self._file.seek(offset)
        return self._file.read(length)

    def close(self) -> None:
        self._file.close()
