"""The order of a corpus: buckets of a spool sorted, duplicates dropped, both splits filled."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.errors import require
from data.sources.text_source import Document
from data.spool import (
    FIRST_RANK,
    HELD_OUT_FRACTION,
    LAST_RANK,
    Duplicates,
    SpoolWriter,
    is_held_out,
    ordered_bucket,
    read_texts,
)


class Ordered(NamedTuple):
    """The documents of a spool, in order.

    folders: of the spool's parts. buckets: a file for each bucket with its entries in order.
    documents, bytes: of all of them. duplicates: what was left out. sha: of all texts and splits.
    held_out: how the held-out documents were chosen, in words; "" where the source names them.
    """

    folders: tuple[Path, ...]
    buckets: tuple[Path, ...]
    documents: int
    bytes: int
    duplicates: Duplicates
    sha: str
    held_out: str

    def train_entries(self, bucket: int) -> np.ndarray:
        """The training documents of a bucket, in order."""
        entries = np.load(self.buckets[bucket])
        return entries[~is_held_out(entries["rank"])]


def order_documents(
    folders: Sequence[Path],
    work: Path,
    *,
    source: str,
    is_pinned: bool,
    keep_duplicates: bool,
    seed: int,
) -> Ordered:
    """Sorts every bucket, a bucket in memory at a time, and sees to it that both splits have text.

    A hash decides which documents are held out; where it leaves a split empty, the document next
    to it moves across, and an only document is cut in two.

    Args:
        folders: of the spool's parts, in the order of the source.
        work: where the order is written.
        source: what errors call the source.
        is_pinned: the source names its held-out documents; then no document moves.
        keep_duplicates: texts that occur more than once stay in.
        seed: of the shuffle.

    Raises:
        InputError: there is no text, the source pins all documents to one split, or the only
            document is a single character.
    """
    indexes = [path for folder in folders for path in folder.glob("*.index")]
    num_buckets = 1 + max((int(path.stem) for path in indexes), default=-1)
    paths = tuple(work / f"order-{bucket:04}.npy" for bucket in range(num_buckets))
    duplicates, num_bytes, total, held_out = Duplicates(0, 0), 0, 0, 0
    for bucket, path in enumerate(paths):
        entries, dropped = ordered_bucket(folders, bucket, keep_duplicates=keep_duplicates)
        np.save(path, entries)
        duplicates = Duplicates(*(a + b for a, b in zip(duplicates, dropped, strict=True)))
        total, num_bytes = total + len(entries), num_bytes + int(entries["length"].sum())
        held_out += int(is_held_out(entries["rank"]).sum())
    require(total > 0, "source", source, "some text (every document is blank)")
    if held_out in (0, total):
        missing = "held_out" if held_out == 0 else "train"
        require(not is_pinned, "source", source, f"{missing} documents")
        if total == 1:
            folder = _cut_in_two(folders, paths, work, seed)
            return order_documents(
                [folder], work, source=source, is_pinned=True, keep_duplicates=True, seed=seed
            )._replace(
                duplicates=duplicates,
                held_out=f"the last {HELD_OUT_FRACTION:.0%} of the only document",
            )
        _move_one(paths, to_held_out=held_out == 0)
    rule = f"about {HELD_OUT_FRACTION:.0%} of the documents, by a hash of their ids"
    return Ordered(
        folders=tuple(folders),
        buckets=paths,
        documents=total,
        bytes=num_bytes,
        duplicates=duplicates,
        sha=_sha(paths),
        held_out="" if is_pinned else rule,
    )


def _sha(paths: Sequence[Path]) -> str:
    """Hash of every document's key, which is a hash of its text, and split."""
    sha = hashlib.sha256()
    for entries in map(np.load, paths):
        identity = np.zeros(len(entries), [("high", "<u8"), ("low", "<u8"), ("held_out", "?")])
        identity["high"], identity["low"] = entries["key_high"], entries["key_low"]
        identity["held_out"] = is_held_out(entries["rank"])
        sha.update(identity.tobytes())
    return sha.hexdigest()


def _move_one(paths: Sequence[Path], *, to_held_out: bool) -> None:
    """Moves the document nearest to the other split's ranks across."""

    def ranks() -> Iterator[tuple[int, int, int]]:
        for bucket, path in enumerate(paths):
            for index, rank in enumerate(np.load(path)["rank"].tolist()):
                yield rank, bucket, index

    _, bucket, index = min(ranks()) if to_held_out else max(ranks())
    entries = np.load(paths[bucket])
    entries["rank"][index] = FIRST_RANK if to_held_out else LAST_RANK
    np.save(paths[bucket], entries)


def _cut_in_two(folders: Sequence[Path], paths: Sequence[Path], work: Path, seed: int) -> Path:
    """Spools the only document as two: its last lines (or characters) are held out."""
    [text] = [
        text
        for bucket, path in enumerate(paths)
        for text in read_texts(folders, bucket, np.load(path))
    ]
    target = len(text) - max(1, round(HELD_OUT_FRACTION * len(text)))
    cut = text.rfind(b"\n", 0, target) + 1 or text.find(b"\n", target) + 1
    if cut in (0, len(text)):
        cut = target
        while cut > 0 and text[cut] & 0xC0 == 0x80:  # inside a character
            cut -= 1
    require(0 < cut < len(text), "source", text.decode(), "more than one character of text")
    folder = work / "part-of-one"
    writer = SpoolWriter(folder, part=0, num_buckets=1, seed=seed)
    writer.add(Document("begin", text[:cut]), rank=LAST_RANK)
    writer.add(Document("end", text[cut:]), rank=FIRST_RANK)
    writer.close({})
    return folder
